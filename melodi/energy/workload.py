"""What joules bought: the work done in a window, and its ratios to the energy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What ran in a window, as its owner tells it; None: not told."""

    samples: int | None = None
    """How many inputs (prompts, images, batches) were processed."""
    macs: int | None = None
    """Multiply-accumulate operations that one sample takes."""
    params: int | None = None
    """Parameters of the model."""

    def joules_per_sample(self, joules: float | None) -> float | None:
        """Joules / samples; None where either is unknown."""
        if joules is None or self.samples is None:
            return None
        return joules / self.samples

    def work_per_joule(self, joules: float | None) -> float | None:
        """MACs per joule: MACs per sample x samples / joules; None where one is unknown or 0 J."""
        if not joules or self.samples is None or self.macs is None:
            return None
        return self.macs * self.samples / joules

    @property
    def macs_per_parameter(self) -> float | None:
        """MACs per sample / parameters; None where either is unknown."""
        if self.macs is None or self.params is None:
            return None
        return self.macs / self.params
