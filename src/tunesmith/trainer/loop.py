"""The training loop. It reads top to bottom: prepare, then for each step compute, update, report, evaluate, save.

Legend: S supervised tokens. The loss of a step is the sum over its supervised tokens divided by their number, whatever
the micro-batches and however many processes share the step.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from tunesmith.core.errors import TrainerError
from tunesmith.core.types import (
    CONTROL_FILE,
    CheckpointData,
    Control,
    MetricLine,
    RowLoss,
    RunResult,
    RunSpec,
)
from tunesmith.data.steps import steps_per_epoch
from tunesmith.data.tokens import TokenSequence
from tunesmith.trainer import checkpoint, export, schedule
from tunesmith.trainer.checkpoint import RunState
from tunesmith.trainer.compute import StepLosses, row_set_losses
from tunesmith.trainer.dataset import RunData
from tunesmith.trainer.events import RunLog
from tunesmith.trainer.measure import peak_memory_bytes
from tunesmith.trainer.model import TrainedModel
from tunesmith.trainer.ranks import Ranks

_SPEED_SMOOTHING = 0.9


class Stopped(Exception):
    """The run was asked to stop; raised between micro-batches, so half a step is never taken."""

    def __init__(self, action: str):
        super().__init__(action)
        self.action = action


class Run:
    """One training run in one process. ``train()`` returns how it ended."""

    def __init__(
        self, run_dir: Path, spec: RunSpec, data: RunData, trained: TrainedModel, log: RunLog, ranks: Ranks, dtype: str
    ):
        self.run_dir, self.spec, self.data, self.trained, self.log, self.ranks = (
            run_dir,
            spec,
            data,
            trained,
            log,
            ranks,
        )
        self.dtype = dtype
        self.parameters = [parameter for _, parameter in trained.named_parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=spec.learning_rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=spec.weight_decay,
            fused=True,
        )
        self.state = RunState()
        self.steps_per_epoch = steps_per_epoch(data.num_train_rows, spec.batch_size)
        self.total_steps = self.steps_per_epoch * spec.n_epochs
        self.is_terminated: Callable[[], bool] = lambda: False
        self._is_evaluating = False
        self._step_s: float | None = None
        self._eval_s = 0.0

    def train(self) -> RunResult | None:
        """Run to the end, or to the stop that was asked for; resumes from the newest checkpoint by itself.

        None when a signal ended the process before its run was over.
        """
        self._resume()
        try:
            self._first_evaluation()
            self.log.phase("training")
            for step in range(self.state.step + 1, self.total_steps + 1):
                self._step(step)
        except Stopped as stop:
            return self._stop(stop.action)
        self.log.phase("exporting")
        if self.ranks.is_main:
            export.write_results_csv(self.run_dir, self.log.read_metrics())
        return self._result("succeeded")

    def _resume(self) -> None:
        newest = checkpoint.latest_checkpoint(self.run_dir)
        if newest is None:
            self._require_disk_space()
        else:
            self.state = checkpoint.resume(newest, self.trained, self.optimizer)
            self.log.message(f"Resumed from the checkpoint of step {self.state.step}", step=self.state.step)
            line = self._line_of(self.state.step)
            if line is not None and self.ranks.is_main:
                self._announce(newest, line)
        self.log.rewind_rows(self.state.step)

    def _first_evaluation(self) -> None:
        """Measured before the first step: shows the start, and that an evaluation fits into memory."""
        if self.state.step == 0 and self.data.valid:
            before = self.evaluate(self._eval_rows())
            self.log.message(
                f"Before training: validation loss={before.loss:.4f}, token accuracy={before.accuracy:.4f} "
                f"on {len(before.rows)} rows",
                valid_loss=before.loss,
                valid_mean_token_accuracy=before.accuracy,
            )

    def _step(self, step: int) -> None:
        started = time.monotonic()
        sequences = self.data.step_sequences(step, self.spec)
        rate = schedule.learning_rate(
            step, peak=self.spec.learning_rate, warmup_steps=self.spec.warmup_steps, total_steps=self.total_steps
        )
        losses = self._forward_backward(sequences)
        norm = self._update(rate)
        if not (math.isfinite(losses.loss) and math.isfinite(norm)):
            raise TrainerError(
                f"The loss became {losses.loss} at step {step}.",
                code="loss_diverged",
                mend="Try a smaller learning_rate_multiplier.",
            )
        num_tokens = sum(len(sequence.token_ids) for sequence in sequences)
        self.state.step = step
        self.state.trained_tokens += num_tokens
        self.state.train_rows += losses.rows
        step_s = time.monotonic() - started
        self._is_evaluating = True
        valid, full = self._evaluations(step)
        self._is_evaluating = False
        eval_s = time.monotonic() - started - step_s
        self._measure_speed(step_s)
        line = MetricLine(
            step=step,
            total_steps=self.total_steps,
            epoch=step / self.steps_per_epoch,
            train_loss=losses.loss,
            train_mean_token_accuracy=losses.accuracy,
            valid_loss=valid and valid.loss,
            valid_mean_token_accuracy=valid and valid.accuracy,
            full_valid_loss=full and full.loss,
            full_valid_mean_token_accuracy=full and full.accuracy,
            learning_rate=rate,
            grad_norm=norm,
            num_tokens=num_tokens,
            num_computed_tokens=losses.num_computed_tokens,
            num_supervised_tokens=losses.num_supervised_tokens,
            step_s=step_s,
            eval_s=eval_s,
            remaining_s=self._remaining_s(step),
        )
        self.log.metrics(line)
        if step % self.steps_per_epoch == 0:
            self._save(line)
        self._obey()

    def _forward_backward(self, sequences: list[TokenSequence]) -> StepLosses:
        for parameter in self.parameters:
            parameter.grad = None
        losses = row_set_losses(
            self.trained,
            sequences,
            learn=True,
            ranks=self.ranks,
            max_tokens=self.spec.micro_batch_tokens,
            before_each=self._obey_alone,
        )
        self.ranks.add_gradients(self.parameters)
        return losses

    def _update(self, rate: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return float(norm)

    def evaluate(self, sequences: list[TokenSequence]) -> StepLosses:
        """Losses without learning, in micro-batches of the same size as training's."""
        started = time.monotonic()
        losses = row_set_losses(
            self.trained,
            sequences,
            learn=False,
            ranks=self.ranks,
            max_tokens=self.spec.micro_batch_tokens,
            before_each=self._obey_alone,
        )
        self._eval_s = (time.monotonic() - started) / max(1, len(sequences))
        return losses

    def _evaluations(self, step: int) -> tuple[StepLosses | None, StepLosses | None]:
        """(small validation batch, whole validation set) where this step measures them."""
        is_epoch_end = step % self.steps_per_epoch == 0
        is_due = is_epoch_end or step % self.spec.eval_every_steps == 0
        if not is_due:
            return None, None
        valid = full = None
        if self.data.valid:
            valid = self.evaluate(self._eval_rows())
            full = self.evaluate(self.data.valid) if is_epoch_end else None
        self._write_rows(step, full or valid)
        return valid, full

    def _eval_rows(self) -> list[TokenSequence]:
        return self.data.valid[: self.spec.eval_rows]

    def _write_rows(self, step: int, valid: StepLosses | None) -> None:
        found = [("train", row) for row in self.state.train_rows] + [
            ("valid", row) for row in (valid.rows if valid else [])
        ]
        self.state.train_rows = []
        self.log.row_losses(
            [
                RowLoss(step=step, split=split, line=line, loss=loss, num_tokens=count, num_correct=correct)  # type: ignore[arg-type]
                for split, (line, loss, count, correct) in found
            ]
        )

    def _save(self, line: MetricLine) -> None:
        """A checkpoint; the best is the one with the lowest loss on the whole validation set."""
        score = line.full_valid_loss
        if score is not None and (self.state.best_loss is None or score < self.state.best_loss):
            self.state.best_step, self.state.best_loss = line.step, score
        if self.ranks.is_main:
            folder = checkpoint.save_checkpoint(self.run_dir, self.spec, self.trained, self.optimizer, self.state)
            self._announce(folder, line)

    def _announce(self, folder: Path, line: MetricLine) -> None:
        """Tell of a checkpoint, once; also of one whose trainer died before it could tell."""
        export.write_parity(folder, self.trained, self.data.valid or self.data.train)
        removed = checkpoint.prune_checkpoints(
            self.run_dir, keep_last=self.spec.keep_checkpoints, best_step=self.state.best_step
        )
        self.log.checkpoint(
            CheckpointData(
                step=line.step,
                dir=str(folder.relative_to(self.run_dir)),
                sha256=checkpoint.weights_sha256(folder),
                metrics={column: getattr(line, column) for column in export.CSV_COLUMNS},
                is_best=self.state.best_step == line.step,
                removed_steps=removed,
            )
        )

    def _line_of(self, step: int) -> MetricLine | None:
        """The numbers of a step; a resumed run may be behind its log, and has none before its first step."""
        return next((line for line in self.log.read_metrics() if line.step == step), None)

    def _obey_alone(self) -> None:
        """Between micro-batches. Several processes may have different numbers of them, so they obey between steps."""
        if self.ranks.size == 1:
            self._obey()

    def _obey(self) -> None:
        """Stop if the control file or a signal says so. Half a step is dropped; only a cancel ends an evaluation."""
        file = self.run_dir / CONTROL_FILE
        action: str | None = "terminate" if self.is_terminated() else None
        if file.exists():
            action = msgspec.json.decode(file.read_bytes(), type=Control).action
        action = self.ranks.agree(action)
        if action == "cancel" or (action is not None and not self._is_evaluating):
            raise Stopped(action)

    def _stop(self, action: str) -> RunResult | None:
        """Save where the run stands, and say how it ended; after a signal there is no end, another trainer goes on."""
        line = self._line_of(self.state.step)
        if line is not None and self.ranks.is_main:
            folder = checkpoint.save_checkpoint(self.run_dir, self.spec, self.trained, self.optimizer, self.state)
            self._announce(folder, line)
        if action == "terminate":
            self.log.message(f"Interrupted at step {self.state.step}; the run goes on when it is started again")
            return None
        return self._result("cancelled" if action == "cancel" else "paused")

    def _require_disk_space(self) -> None:
        needed, free = checkpoint.disk_space(self.run_dir, self.trained, self.spec.keep_checkpoints + 2)
        if free < needed:
            raise TrainerError(
                f"The checkpoints of this run need {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free.",
                code="disk_full",
                mend="Make room, or tune with a smaller rank.",
            )

    def _measure_speed(self, step_s: float) -> None:
        old = self._step_s
        self._step_s = step_s if old is None else _SPEED_SMOOTHING * old + (1 - _SPEED_SMOOTHING) * step_s

    def _remaining_s(self, step: int) -> float:
        """Steps and evaluations that are still to come, at the speed so far."""
        left = self.total_steps - step
        small = left / self.spec.eval_every_steps * min(self.spec.eval_rows, len(self.data.valid))
        epochs_left = self.spec.n_epochs - step // self.steps_per_epoch
        return left * (self._step_s or 0.0) + self._eval_s * (small + epochs_left * len(self.data.valid))

    def _result(self, status: str) -> RunResult:
        return RunResult(
            status=status,  # type: ignore[arg-type]
            step=self.state.step,
            trained_tokens=self.state.trained_tokens,
            best_step=self.state.best_step,
            peak_memory_bytes=peak_memory_bytes(),
            dtype=self.dtype,
        )
