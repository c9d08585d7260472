"""``nlpmeta serve``: models over HTTP, with a page to teach on."""

from pathlib import Path
from typing import Annotated

import typer

from nlpmeta.cli.process import Device, loads_encoder

EXAMPLES = """Examples:

  nlpmeta serve                          # then open http://127.0.0.1:8000 and teach a model

  nlpmeta serve my-model

  nlpmeta serve --models my-models --port 9000

  nlpmeta serve my-model --host 0.0.0.0 --token-file tokens.txt

  nlpmeta serve --users users.sqlite

  curl -s http://127.0.0.1:8000/v1/models/my-model/predict -H 'Content-Type: application/json' \\
       -d '{"texts": ["nataka pesa yangu"]}'
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(serve))


def serve(
    model: Annotated[list[Path] | None, typer.Argument(help="Folders of adapted models.")] = None,
    *,
    models: Annotated[
        Path, typer.Option(help="Folder whose models are served by name, and that keeps what is taught.")
    ] = Path("nlpmeta-models"),
    users: Annotated[Path | None, typer.Option(help="File of users' heads (AdapterStore).")] = None,
    host: Annotated[str, typer.Option(help="Address; another than loopback needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="File of accepted tokens, one a line.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="No token, though others can reach the server.")] = False,
    engine: Annotated[str, typer.Option(help="torch, onnx, onnx-int8, or auto: compiled, else torch.")] = "auto",
    encoder: Annotated[str | None, typer.Option(help="Encoder of new models: folder or Hub id.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint of new models: default, none, or a folder.")] = "default",
    device: Device = "auto",
) -> None:
    """Serve models over HTTP, with a page to make and teach them on.

    Without --token-file it answers on this machine alone. What is taught is on disk (in --models) before it is
    confirmed. Ctrl-C answers what is under way and ends.
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
    answer(settings, on_address=lambda url: say(f"Serving on {url} (the page to teach on is there). Ctrl-C ends it."))
