"""Meta-training: what can be trained, on what, the one call that does it, and a recipe carried out with it."""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.encoder.device import Device, resolve_device
from nlpmeta.encoder.lora import add_adapter, freeze_below, load_adapter
from nlpmeta.episodes import Sampler
from nlpmeta.errors import NLPMetaError, WorkFailedError, visible
from nlpmeta.learners.base import Learner, learners
from nlpmeta.learners.checkpoint import refuse_other_checkpoint_files, save_checkpoint
from nlpmeta.learners.start import checkpoint_folder
from nlpmeta.settings import SettingsError
from nlpmeta.sources.catalogue import CatalogueEntry, catalogue
from nlpmeta.storage.files import Json, disk_errors_said_plainly, read_json, write_json
from nlpmeta.storage.folders import only_one
from nlpmeta.training import Recipe, TrainSettings
from nlpmeta.training.forecast import check_trackers
from nlpmeta.training.optimise import DivergedError, trainable
from nlpmeta.training.resume import refuse_old_run
from nlpmeta.training.run import Run, TrainResult
from nlpmeta.training.tasks import sampler_of, sets_of, training_sampler

if TYPE_CHECKING:
    from accelerate import Accelerator


def meta_train(
    learner: Learner,
    sampler: Sampler,
    *,
    settings: TrainSettings,
    out: Path | None = None,
    evaluate: Mapping[str, Sampler] | None = None,
    resume: bool = False,
    on_best: Callable[[int], None] | None = None,
    accelerator: "Accelerator | None" = None,
    device: Device = "auto",
    show_progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> TrainResult:
    """Change ``learner`` in place so that it adapts better to episodes like those of ``sampler``.

    Step ``s`` trains on episodes ``s * n`` to ``(s + 1) * n - 1``, dealt out over the processes; gradients are averaged
    by hand, as through ``DistributedDataParallel`` only ``forward`` would be synchronised.

    Args:
        learner: what is trained: the adapters of its encoder and its own weights.
        sampler: the training tasks.
        settings: everything else.
        out: where ``metrics.jsonl`` and the checkpoints for ``resume`` go; nothing is written without it.
        evaluate: held-out tasks by name; the weights that are best on them (equal shares) are kept at the end.
        resume: go on from the newest whole checkpoint in ``out``, if there is one.
        on_best: called with the number of steps whenever held-out accuracy is the best so far; the learner then has the
            weights that reached it.
        accelerator: made from ``settings`` and ``device`` if not given.
        device: where to train: ``auto`` (CUDA, MPS, XPU, else the CPU; or what ``NLPMETA_DEVICE`` names), or one of
            them. Several devices are given by ``accelerate launch``.
        show_progress: a live line on standard error, if that is a terminal.
        say: called with each note before the first step.

    Raises:
        NLPMetaError: if the learner cannot be trained like this, or ``out`` holds another run.
        DivergedError: if a loss, gradient or weight is not finite; the learner is left with the last good weights.
    """
    check_trainable(learner, settings)
    accelerator = accelerator or make_accelerator(settings, out, device=device)
    if settings.episodes_per_step % accelerator.num_processes:
        raise NLPMetaError(
            f"episodes_per_step must be a multiple of the {accelerator.num_processes} processes; it is "
            f"{settings.episodes_per_step}."
        )
    learner.to(accelerator.device).train()
    run = Run(learner, sampler, settings, out, evaluate or {}, accelerator, on_best, show_progress)
    with run.cached_states(say):
        if run.encoder_trains and (say is not None or accelerator.num_processes > 1):  # all processes, or none
            memory, seconds = run.forecasts()
            if say is not None:
                say(f"Memory: {memory}.")
                say(f"Time: {seconds}.")
        return run.go(resume=resume)


def check_trainable(learner: Learner, settings: TrainSettings) -> None:
    """Refuse, before any work, what cannot be trained.

    Raises:
        NLPMetaError: says what and why.
    """
    name = type(learner).__name__
    if not learner.differentiable:
        raise NLPMetaError(f"{name} cannot be meta-trained: its scores have no gradient. Use prototypical or ridge.")
    if settings.mixed_precision == "fp16" and learner.gradient_in_adapt:
        raise NLPMetaError(f"fp16 is refused for {name}: its inner steps have no loss scaling. Use bf16 or no.")
    if learner.inputs == "tokens" and (settings.contrastive_weight or settings.anchor_weight or settings.mix_share):
        raise NLPMetaError(f"{name} embeds its texts itself; contrastive_weight, anchor_weight, mix_share must be 0.")
    trainable(learner)


def make_accelerator(settings: TrainSettings, out: Path | None, *, device: Device = "auto") -> "Accelerator":
    """An Accelerator for these settings, on the devices that ``accelerate launch`` gave, else on ``device``.

    Raises:
        NLPMetaError: if there is no such device, or it is not the first of its kind.
    """
    place = resolve_device(device)
    if place.index:
        raise NLPMetaError(
            f"Training takes the first device of a kind, not {place}. Let it see that one alone: "
            f"CUDA_VISIBLE_DEVICES={place.index} (ZE_AFFINITY_MASK for XPU), and --device {place.type}."
        )
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    check_trackers(settings.trackers)
    # Accelerate keeps one state a process; a second run in it may have another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    project = ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "logs")) if out is not None else None
    return Accelerator(
        cpu=place.type == "cpu",
        mixed_precision=settings.mixed_precision,
        log_with=list(settings.trackers) or None,
        project_config=project,
    )


RECIPE_FILE, LOCK_FILE = "recipe.json", ".training.lock"
_HELDOUT_SEED = 1_000_003  # held-out episodes stay the same when the seed of training changes


@dataclass(frozen=True)
class RecipeRun:
    """What became of a recipe; ``is_main`` in one of several processes, which speaks for all."""

    result: TrainResult
    out: Path
    is_main: bool


def run_recipe(
    recipe: Recipe,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    show_progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> RecipeRun:
    """Meta-train as the recipe says; the finished checkpoint, and the best so far while it runs, lie in ``out``.

    ``device`` says where, as in ``meta_train``.

    Raises:
        NLPMetaError: if data, encoder, learner or settings do not go together; before training starts.
        DivergedError: if a loss, gradient or weight is not finite; the last good weights are in ``out``.
    """
    out, settings = Path(recipe.out), recipe.settings()
    refuse_impossible_folder(out)
    check_resumable(recipe, out) if resume else refuse_used_folder(out)
    learner = build_learner(recipe)
    check_trainable(learner, settings)
    sampler = training_sampler(recipe.data, seed=recipe.seed, data_dir=data_dir, mask=learner.encoder.mask_token)
    heldout = {part.name: sampler_of(part, seed=_HELDOUT_SEED, data_dir=data_dir) for part in recipe.heldout}
    accelerator = make_accelerator(settings, out, device=device)
    facts = training_facts(recipe)

    def keep(step: int) -> None:
        save_checkpoint(learner, out, {**facts, "steps": step}, storage=recipe.storage)

    with only_one(out / LOCK_FILE, "training") if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            write_json(out / RECIPE_FILE, recipe.model_dump(mode="json"))
        try:
            result = meta_train(
                learner,
                sampler,
                settings=settings,
                out=out,
                evaluate=heldout,
                resume=resume,
                on_best=keep,
                accelerator=accelerator,
                show_progress=show_progress,
                say=say if accelerator.is_main_process else None,
            )
        except DivergedError as error:
            if accelerator.is_main_process:
                save_checkpoint(learner, out, {**facts, "diverged_at_step": error.step}, storage=recipe.storage)
            raise DivergedError(error.step, error.what, settings, kept=True) from error
        if accelerator.is_main_process:
            done: dict[str, Json] = {**facts, "steps": result.best_step, "heldout_accuracy": result.best_accuracy}
            save_checkpoint(learner, out, done, storage=recipe.storage)
    return RecipeRun(result, out, accelerator.is_main_process)


def build_learner(recipe: Recipe) -> Learner:
    """The learner of a recipe on its encoder, with fresh adapters or those of the checkpoint it starts from."""
    from nlpmeta.encoder.text_encoder import TextEncoder

    kind, choice = learners[recipe.learner], recipe.encoder
    # On the CPU, where adapters are drawn; training moves it.
    encoder = TextEncoder.from_pretrained(
        choice.name, revision=choice.revision, prefix=choice.prefix, max_length=choice.max_length,
        pooling=choice.pooling, device="cpu",
    )  # fmt: skip
    if recipe.start is not None:
        load_adapter(encoder, checkpoint_folder(recipe.start))
        if recipe.adapter is None:
            encoder.requires_grad_(False)
        elif recipe.adapter.layers is not None:
            freeze_below(encoder, recipe.adapter.layers)
    elif recipe.adapter is not None:
        add_adapter(encoder, recipe.adapter, seed=recipe.seed)
    try:
        return kind(encoder, **recipe.learner_options)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
        if isinstance(error, NLPMetaError):
            raise
        reason = visible(str(error))
        raise NLPMetaError(f"learner_options do not fit the method {recipe.learner!r}: {reason}.") from error


def training_facts(recipe: Recipe) -> dict[str, Json]:
    """What a checkpoint says about its training: recipe, data sets with their licences and sources, languages."""
    files = {Path(part.file).name for part in recipe.data if part.file is not None}
    sets = {name for part in recipe.data if part.file is None for name in sets_of(part)}
    return {
        "recipe_digest": recipe.digest(),
        "recipe": recipe.model_dump(mode="json"),
        "sets": sorted(sets | files),
        "provenance": {name: _provenance(catalogue()[name]) for name in sorted(sets & set(catalogue()))},
        "leave_out_langs": sorted({lang for part in recipe.data for lang in part.leave_out_langs}),
    }


def refuse_impossible_folder(out: Path) -> None:
    """Refuse, before any work, where no folder can be: a file, below a file, or where this user may not write.

    Raises:
        WorkFailedError: says why.
    """
    with disk_errors_said_plainly(out):
        if out.exists() and not out.is_dir():
            raise WorkFailedError(f"{out} is a file; name a folder as out=.")
        nearest = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise WorkFailedError(f"{out} cannot be made: {nearest} is not a folder. Choose another out=.")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


def refuse_used_folder(out: Path) -> None:
    """Refuse to begin where a run, or a file of somebody's own, would be written over.

    Raises:
        NLPMetaError: names it and the ways out.
        WorkFailedError: if there cannot be such a folder.
    """
    with disk_errors_said_plainly(out):
        refuse_old_run(out)
        if (out / RECIPE_FILE).exists():
            raise NLPMetaError(
                f"{out / RECIPE_FILE} already exists and was kept. Continue its run with --resume, or "
                "choose another out=."
            )
        refuse_other_checkpoint_files(out)


def _provenance(entry: CatalogueEntry) -> dict[str, Json]:
    return {"title": entry.facts.title, "licence": entry.facts.licence, "source": entry.facts.citation}


def check_resumable(recipe: Recipe, out: Path) -> None:
    """Refuse to go on with a run that had other tasks, another encoder or another learner.

    Raises:
        NLPMetaError: names the keys that differ. The keys of ``TrainSettings`` are checked where training starts.
    """
    path = out / RECIPE_FILE
    if not path.is_file():
        refuse_used_folder(out)
        return
    refuse_other_checkpoint_files(out)
    before = read_json(path)
    if isinstance(before, dict):  # keys that an older release did not have are as they are by default
        with suppress(SettingsError):
            before = Recipe.parse(before, where=str(path)).model_dump(mode="json")
    now = recipe.model_dump(mode="json", exclude={*TrainSettings.model_fields, "out", "storage"})
    changed = [name for name, value in now.items() if not isinstance(before, dict) or before.get(name) != value]
    if changed:
        raise NLPMetaError(
            f"The run in {out} had another {' and another '.join(changed)}. Resume it with the same one, which is in "
            f"{path}, or choose another out=."
        )
