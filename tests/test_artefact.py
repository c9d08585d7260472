import pytest
import torch
from conftest import make_encoder
from peft import PeftModel
from test_lora import adapted_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.adaptation.artefact import load_task, save_task
from nlpmeta.encoder.lora import WEIGHTS_FILE
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.learners.maml import ANIL, MAML


@pytest.fixture
def classifier(pool):
    learner = MAML(adapted_encoder(), inner_steps=2, adapter_rate=0.1, head_rate=0.5, temperature=0.2)
    return FewShotClassifier(learner).fit(list(pool.texts), list(pool.names()))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # within peft
def test_plain_peft_reads_the_adapter_of_a_task(classifier, pool, tmp_path):
    save_task(classifier, tmp_path / "task")
    adapter = {k.removeprefix("adapter/"): v for k, v in classifier.state_.items() if k.startswith("adapter/")}
    expected = classifier.learner_.encoder(pool.texts, adapter=adapter)
    assert not torch.allclose(expected, classifier.learner_.encoder(pool.texts), atol=1e-4)
    base = make_encoder()
    theirs = TextEncoder(PeftModel.from_pretrained(base.backbone, tmp_path / "task"), base.tokenizer, max_length=32)
    torch.testing.assert_close(theirs.encode(pool.texts), expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("storage", "tolerance"), [("exact", 1e-6), ("float16", 1e-2), ("int8", 5e-2)])
def test_a_task_predicts_the_same_after_loading(classifier, encoder, pool, tmp_path, storage, tolerance):
    save_task(classifier, tmp_path / "task", storage=storage)
    loaded = load_task(tmp_path / "task", encoder)
    assert loaded.classes_.tolist() == classifier.classes_.tolist()
    before, after = (torch.tensor(each.predict_proba(pool.texts)) for each in (classifier, loaded))
    torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


def test_bytes_take_a_quarter_of_the_numbers(classifier, tmp_path):
    from safetensors.torch import load_file

    sizes = {}
    for storage in ("exact", "int8"):
        save_task(classifier, tmp_path / storage, storage=storage)
        stored = load_file(tmp_path / storage / WEIGHTS_FILE)
        sizes[storage] = sum(v.numel() * v.element_size() for k, v in stored.items() if not k.endswith(".scale"))
    assert sizes["int8"] * 4 == sizes["exact"]


def test_a_head_for_other_classes_is_refused(classifier, encoder, tmp_path):
    save_task(classifier, tmp_path / "task")
    labels = tmp_path / "task" / "labels.json"
    labels.write_text(labels.read_text().replace('"food",', ""))
    with pytest.raises(ModelFolderError, match="should hold float32 tensors"):
        load_task(tmp_path / "task", encoder)


def test_a_model_without_an_adapter_of_its_own_is_refused(pool, tmp_path):
    classifier = FewShotClassifier(ANIL(adapted_encoder())).fit(list(pool.texts), list(pool.names()))
    with pytest.raises(NLPMetaError, match="has no adapter of its own"):
        save_task(classifier, tmp_path / "task")
    assert not (tmp_path / "task").exists()
