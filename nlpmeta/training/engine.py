"""Meta-training: what can be trained, on what, and the one call that does it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.encoder.device import Device, resolve_device
from nlpmeta.episodes.base import Sampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner
from nlpmeta.training.forecast import forecast_memory
from nlpmeta.training.journal import check_trackers
from nlpmeta.training.optimise import trainable
from nlpmeta.training.recipe import TrainSettings
from nlpmeta.training.run import Run, TrainResult

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
            forecast = forecast_memory(run.stepper, run.weights)
            if say is not None:
                say(f"Memory: {forecast}.")
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
