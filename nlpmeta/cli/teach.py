"""``nlpmeta teach``: more examples for a model in use; ``nlpmeta serve``: models over HTTP, and a page to teach on."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    Delimiter,
    DescriptionsFile,
    Device,
    Encoding,
    EngineName,
    LabelColumn,
    LabelSeparator,
    NoHeader,
    TextColumn,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.teaching import Taught
    from nlpmeta.sources import Source

EXAMPLES = """Examples:

  nlpmeta adapt --data mine.csv --shots all --include-support --out my-model

  nlpmeta teach my-model "nataka pesa yangu" --label refund

  nlpmeta teach my-model --data more.csv

  nlpmeta teach my-model --data more.csv --out my-model-2 --json

  nlpmeta teach my-model --descriptions labels.csv

  nlpmeta teach my-model --class-prior spam=0.1,ham=0.9   # how often classes will occur

  nlpmeta teach my-emotions "what a lovely surprise" --label "joy;surprise"   # several labels per text
"""
SERVE_EXAMPLES = """Examples:

  nlpmeta serve                          # then open http://127.0.0.1:8000 and teach a model

  nlpmeta serve my-model

  nlpmeta serve --models my-models --port 9000

  nlpmeta serve my-model --host 0.0.0.0 --token-file tokens.txt

  nlpmeta serve --users users.sqlite

  curl -s http://127.0.0.1:8000/v1/models/my-model/predict -H 'Content-Type: application/json' \\
       -d '{"texts": ["nataka pesa yangu"]}'
"""
_FEW = 30  # scored examples: below this a figure says little


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=EXAMPLES, short_help="Add examples and classes to a saved model.")(loads_encoder(teach))
    app.command(epilog=SERVE_EXAMPLES, short_help="Serve models over HTTP, with a page to teach them on.")(
        loads_encoder(serve)
    )


def teach(
    model: Annotated[str, typer.Argument(help="Folder of a model that was made with --include-support.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts of the class that --label names.")] = None,
    *,
    label: Annotated[str | None, typer.Option(help="The class of the texts, or several: 'joy;anger'.")] = None,
    data: Annotated[str | None, typer.Option(help="Table of texts and labels, as for adapt.")] = None,
    descriptions: DescriptionsFile = None,
    class_prior: Annotated[
        str | None, typer.Option(help="How often classes will occur: spam=0.1,ham=0.9; 'even': equally often.")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    device: Device = "auto",
    engine: EngineName = "auto",
    out: Annotated[Path | None, typer.Option(help="New folder for the result; the model itself by default.")] = None,
    json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Add examples and classes to an adapted model, report how its accuracy changes, and save it.

    Accuracy is cross-validated on the examples of the model, before and after. Examples that it has already are
    skipped; where texts have several labels, those of a text that is there are replaced, and --label '' says that it
    has none. The folder is replaced once the new model is complete, or stays as it was.
    """
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.persistence import REPORT_FILE
    from nlpmeta.classifier.teaching import NOTHING, expect, labels_of, report_after
    from nlpmeta.classifier.teaching import teach as learn
    from nlpmeta.cli.console import out_json
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.loading import Descriptions, load_source
    from nlpmeta.storage.manifest import optional_json

    target = _target(model, out)
    form = TableForm(delimiter, encoding, header=not no_header, label_separator=label_separator)
    read = partial(load_source, text_column=text_column, label_column=label_column, form=form)
    said = None if descriptions is None else Descriptions.of_file(descriptions)
    some = texts or label is not None or data or (said is None and class_prior is None)
    new, names, several = _examples(texts or [], label, data, read) if some else ([], [], False)
    classifier = FewShotClassifier.from_pretrained(model, device=device, engine=check_engine(engine))
    labels, classes = labels_of(classifier, _sets(names, classifier, label_separator or ";", several=several))
    taught = NOTHING
    if some or said is not None:
        taught = learn(classifier, new, labels, descriptions=None if said is None else said.of(classes))
    if class_prior is not None:
        expect(classifier, class_prior)
    if taught.changes or class_prior is not None or out is not None:
        report = report_after(optional_json(Path(model) / REPORT_FILE), taught, classifier)
        keeps = classifier.fitted_.examples is not None  # a method that reads a stream keeps none
        classifier.save_pretrained(target, overwrite=out is None, report=report, include_support=keeps)
    if json:
        prior = {str(name): share for name, share in (classifier.class_prior_ or {}).items()}
        out_json({**taught.json(), "class_prior": prior, "n_way": len(classifier.classes_), "out": str(target)})
    else:
        _show(taught, target, classifier, quiet=quiet, expected=class_prior is not None)


def _target(model: str, out: Path | None) -> Path:
    """Where the result goes; refused before any work if it cannot.

    Raises:
        NLPMetaError: if the model is not a folder here and no other is named, or that one exists.
    """
    from nlpmeta.errors import NLPMetaError

    if out is None and not Path(model).is_dir():
        raise NLPMetaError(f"There is no model folder {model!r} here to be saved to; name a new one with --out.")
    if out is not None and out.exists():
        raise NLPMetaError(f"{out} already exists and was kept; name a new folder.")
    return out or Path(model)


def _examples(
    texts: list[str], label: str | None, data: str | None, read: "Callable[[str], Source]"
) -> tuple[list[str], list[str | list[str]], bool]:
    """The new texts, the labels of each as they stand or as a table lists them, and whether a table lists several.

    Raises:
        NLPMetaError: if there are none, or texts without a label.
    """
    from nlpmeta.data.multilabel import MultiLabelTexts
    from nlpmeta.errors import NLPMetaError

    if bool(texts) != (label is not None):
        raise NLPMetaError('Texts and --label go together: nlpmeta teach MODEL "a text" --label NAME.')
    if not texts and data is None:
        raise NLPMetaError(
            "Nothing to teach: give --data FILE, --descriptions FILE, --class-prior SHARES, or texts with --label."
        )
    if empty := [number for number, text in enumerate(texts, 1) if not text.strip()]:
        raise NLPMetaError(f"Text {empty[0]} is empty; leave it out.")
    names: list[str | list[str]] = [label or "" for _ in texts]
    if data is None:
        return texts, names, False
    source = read(data)
    if source.several:
        table = MultiLabelTexts.of(source.load(several=True))
        return [*texts, *table.texts], [*names, *table.names()], True
    plain = source.load()
    return [*texts, *plain.texts], [*names, *plain.names()], False


def _sets(
    names: "Sequence[str | list[str]]", classifier: "FewShotClassifier", separator: str, *, several: bool
) -> list[list[str]]:
    """The labels of each text: what was typed or fills a cell is parted where the model gives several.

    Raises:
        NLPMetaError: if the table has several labels per text and the model gives one, or what was typed is no label.
    """
    from nlpmeta.errors import NLPMetaError

    if classifier.fitted_.gives_sets:
        parted = ((name.split(separator) if isinstance(name, str) else name) for name in names)
        return [[label.strip() for label in each if label.strip()] for each in parted]
    if several:
        raise NLPMetaError("The table has several labels per text, and the model gives one: adapt one to such data.")
    if any(isinstance(name, str) and not name.strip() for name in names):
        raise NLPMetaError("--label is empty; give the name of a class.")
    return [[name] if isinstance(name, str) else name for name in names]


def _show(taught: "Taught", target: Path, classifier: "FewShotClassifier", *, quiet: bool, expected: bool) -> None:
    from nlpmeta.cli.console import out, out_table, printable, say
    from nlpmeta.data.labels import one_but_for_case, words_of

    if expected:
        each = (f"{label} {100 * share:.3g} %" for label, share in (classifier.class_prior_ or {}).items())
        out(printable(f"Classes are expected to occur: {', '.join(each) or 'equally often'}"))

    if not quiet and taught.n_known:
        some = "1 example is" if taught.n_known == 1 else f"{taught.n_known} examples are"
        say(f"Note: {some} in the model already; skipped.")
    if not quiet and taught.n_other_label:
        some = "1 text is" if taught.n_other_label == 1 else f"{taught.n_other_label} texts are"
        if classifier.fitted_.gives_sets:
            say(f"Note: {some} in the model with other labels; these were replaced.")
        else:
            say(f"Note: {some} in the model under another label too; kept under each.")
    if not taught.changes:
        out(f"Saved: {target}" if expected else f"Nothing new: {target} stays as it is")
        return
    if taught.described:
        out(printable(f"Described: {', '.join(taught.described)}"))
    named = (f"{name}{' (new)' if name in taught.new_classes else ''} {n}" for name, n in taught.new.items())
    if taught.n_new:
        some = "1 example" if taught.n_new == 1 else f"{taught.n_new} examples"
        out(printable(f"Learned {some}: {', '.join(named) or 'without a label'}"))
    for line in one_but_for_case(words_of(classifier.classes_)) if taught.new_classes and not quiet else ():
        say(printable(f"Note: {line}"))
    rows = [
        (name, str(held))
        for name, held in (
            ("before", taught.before),
            ("after, on the same examples", taught.after_on_earlier),
            ("after, with the new ones", taught.after),
        )
        if held is not None
    ]
    if rows:
        accuracy = "" if classifier.fitted_.gives_sets else "accuracy "
        out_table(("examples of the model", f"{accuracy}by cross-validation"), rows)
        if not quiet and taught.after is not None and taught.after.n < _FEW:
            some = "1 scored example says" if taught.after.n == 1 else f"{taught.after.n} scored examples say"
            say(
                f"Note: {some} little; a difference of one or two examples is chance. "
                "Compare these rows with each other: adapt uses other folds."
            )
    else:
        out("No accuracy: nothing can be held out of the examples")
    out(f"Saved: {target}")


def serve(
    model: Annotated[list[Path] | None, typer.Argument(help="Folders of adapted models.")] = None,
    *,
    models: Annotated[Path, typer.Option(help="Folder of models to serve by name, and of what is taught.")] = Path(
        "nlpmeta-models"
    ),
    users: Annotated[Path | None, typer.Option(help="File of users' heads (AdapterStore).")] = None,
    host: Annotated[str, typer.Option(help="Address; anything but loopback needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="File of accepted tokens, one a line.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Serve other machines without a token.")] = False,
    engine: Annotated[str, typer.Option(help="torch, onnx, onnx-int8, or auto: compiled, else torch.")] = "auto",
    encoder: Annotated[str | None, typer.Option(help="Encoder of new models: folder or Hub id.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint of new models: default, none, or a folder.")] = "default",
    device: Device = "auto",
) -> None:
    """Serve models over HTTP, with a page to make and teach them on.

    Without --token-file it serves this machine only. What is taught is written to disk (in --models) before it is
    confirmed. Ctrl-C finishes the requests under way and stops.
    """
    from nlpmeta.cli.console import say
    from nlpmeta.cli.process import check_device
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.encoder.weights import DEFAULT_ENCODER
    from nlpmeta.serve import Settings
    from nlpmeta.serve import serve as answer
    from nlpmeta.serve.guard import read_tokens

    check_device(device)
    settings = Settings(
        models, tuple(model or ()), users, host=host, port=port, open_to_all=no_auth, device=device,
        tokens=() if token_file is None else read_tokens(token_file), engine=check_engine(engine),
        encoder=encoder or DEFAULT_ENCODER, checkpoint=checkpoint,
    )  # fmt: skip
    if engine == "auto" and sys.stderr.isatty() and encoder is None and checkpoint != "none":
        from nlpmeta.classifier.light import LightNames
        from nlpmeta.storage.manifest import named_checkpoint

        if LightNames.of_checkpoint(named_checkpoint(checkpoint), "auto") is None:
            what = "" if checkpoint == "default" else f" {checkpoint}"
            say(f"Tip: nlpmeta compile{what}: the server then starts in 2 seconds and answers faster.")
    answer(settings, on_address=lambda url: say(f"Serving on {url} (the teaching page is there). Ctrl-C stops it."))
