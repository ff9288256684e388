"""What a run writes down and tells while it trains: step records, epoch records, skipped updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.train.reporter import Reporter
from ibot_cli.train.tensorboard import Board
from ibot_cli.train.waiting import WaitWatch
from ibot_cli.train.window import Window, WindowContent, broken_terms


@dataclass
class Journal:
    """Metrics, TensorBoard and reporter of a run; in one process only they are written and told.

    Attributes:
        metrics: Where records go.
        board: Where their numbers go too.
        window: The steps since the last reading.
        reporter: Who is told.
        writer: Whether this process writes.
        waiting: Looks at who waits for whom; its hint is told, and noted in the record.
    """

    metrics: MetricsLog
    board: Board
    window: Window
    reporter: Reporter
    writer: bool
    waiting: WaitWatch
    _skipping: bool = False

    def read(self) -> WindowContent:
        """Reads the window and writes its records.

        Raises:
            TrainingError: Too many consecutive steps were not finite.
        """
        content = self.window.read()
        if content.records and self.writer:
            hint = self.waiting.look(content.records[-1], len(content.records), content.seconds)
            if hint is not None:
                content.records[-1]["hint"] = hint
            self.metrics.append(*content.records)
            self.board.write(content.records)
            self.reporter.progress(content.records[-1])
            self._tell_skipped(content.records)
            if hint is not None:
                self.reporter.say(hint)
        return content

    def write_epoch(self, record: Mapping[str, Any]) -> None:
        """Writes and tells the record of a complete epoch."""
        self.metrics.append(record)
        self.board.write([record])
        self.reporter.epoch(record)

    def close(self) -> None:
        """Closes the files and tells that no more comes."""
        self.reporter.stop()
        self.metrics.close()
        self.board.close()

    def _tell_skipped(self, records: Sequence[Mapping[str, Any]]) -> None:
        """A warning where updates begin to be skipped, not at every reading from then on."""
        skipped = [record for record in records if record["skipped"] and not record.get("overflow")]
        if skipped and not self._skipping:
            self.reporter.warn(
                f"{len(skipped)} of the last {len(records)} updates were skipped, the first at step "
                f"{skipped[0]['step']:,}: {' and '.join(broken_terms(skipped[0]))} not finite. Training stops after "
                f"{self.window.max_bad_steps} in a row."
            )
        self._skipping = bool(skipped)
