"""Other people's training loops take `hybrid` as they take AdamW, and go on bit for bit."""

import pytest
import torch
from torch.utils.data import DataLoader

from optimizers import hybrid
from tests.helpers.zoo import POSITIONS, VOCABULARY, tiny_gpt2, tiny_llama, weights

pytestmark = pytest.mark.more
STEPS, HALF = 6, 3


def examples():
    rows = torch.randint(
        VOCABULARY, (2 * STEPS, POSITIONS), generator=torch.Generator().manual_seed(1)
    )
    return [{"input_ids": row, "labels": row} for row in rows]


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))


@pytest.fixture(scope="module")
def plain():
    """The model after a plain loop over the examples, with a rate that falls."""
    model = tiny_gpt2()
    optimizer = hybrid(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for batch in DataLoader(examples(), batch_size=2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        schedule.step()
    return model


# transformers ----------------------------------------------------------------------------------


def test_transformers_trainer(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    settings = TrainingArguments(
        str(tmp_path),
        max_steps=STEPS,
        save_steps=HALF,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    ends = []
    for resume in (None, str(tmp_path / f"checkpoint-{HALF}")):
        model = tiny_gpt2()
        optimizer = hybrid(model)
        start = weights(model)
        trainer = Trainer(model, settings, train_dataset=examples(), optimizers=(optimizer, None))
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.optimizer.optimizer is optimizer  # wrapped, not replaced
        assert not any(map(torch.equal, start, weights(model)))
        ends.append(model)
    assert same(*ends)
    saved = torch.load(tmp_path / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)
    assert len(saved["state"]) == len(list(ends[0].parameters()))


# accelerate ------------------------------------------------------------------------------------


def test_accelerate(plain, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def prepared():
        accelerator = accelerate.Accelerator(cpu=True)
        model = tiny_gpt2()
        optimizer = hybrid(model)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return accelerator, *accelerator.prepare(model, optimizer, schedule)

    def go(accelerator, model, optimizer, schedule, batches):
        for batch in batches:
            with accelerator.accumulate(model):
                optimizer.zero_grad()
                accelerator.backward(model(**batch).loss)
                optimizer.step()
                schedule.step()

    batches = list(DataLoader(examples(), batch_size=2))
    first = prepared()
    go(*first, batches[:HALF])
    first[0].save_state(str(tmp_path))
    go(*first, batches[HALF:])
    assert same(first[1], plain)
    second = prepared()
    second[0].load_state(str(tmp_path))
    go(*second, batches[HALF:])
    assert same(second[1], plain)


# Lightning -------------------------------------------------------------------------------------


def test_lightning_in_automatic_mode(plain, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = tiny_gpt2()

        def training_step(self, batch):
            return self.model(**batch).loss

        def configure_optimizers(self):
            optimizer = hybrid(self.model)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def trainer(steps):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return lightning.Trainer(
            accelerator="cpu", max_steps=steps, enable_checkpointing=False, **quiet
        )

    module = Module()
    trainer(STEPS).fit(module, DataLoader(examples(), batch_size=2))
    assert same(module.model, plain)
    data = DataLoader(examples()[:2] * STEPS, batch_size=2)  # Lightning's loaders begin anew
    straight, first, second = Module(), Module(), Module()
    trainer(STEPS).fit(straight, data)
    half = trainer(HALF)
    half.fit(first, data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(STEPS).fit(second, data, ckpt_path=tmp_path / "half.ckpt")
    assert same(second.model, straight.model) and not same(first.model, second.model)


# peft ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "targets"), [(tiny_gpt2, ["c_attn"]), (tiny_llama, ["q_proj", "v_proj"])]
)
def test_a_lora_base_stays_as_it_is_and_has_no_state(build, targets):
    peft = pytest.importorskip("peft")
    wanted = peft.LoraConfig(r=4, target_modules=targets, fan_in_fan_out=build is tiny_gpt2)
    model = peft.get_peft_model(build(), wanted)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = hybrid(model)
    for batch in DataLoader(examples(), batch_size=2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(before[name], p) != ("lora_" in name), name
        assert (p in optimizer.state) == ("lora_" in name)
    assert {row["optimizer"] for row in optimizer.table} == {"Muon"}
