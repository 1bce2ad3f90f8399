"""The data doctor: what is wrong with a dataset, and what to do about it."""

from tlx.data.doctor.checkup import examine, grouped, worst

__all__ = ["examine", "grouped", "worst"]
