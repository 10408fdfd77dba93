"""What can go wrong in measuring.

AnalysisError
├── LabelsInvalid    there is nothing to measure by
├── ReportFailed     a report cannot be written
├── RuleInvalid      a rule of what to keep is not one
├── RunInvalid       there is no such run of `dups`, or it cannot be undone
└── StepFailed       the disk refuses a step of `dups`
"""

from __future__ import annotations


class AnalysisError(Exception):
    """Any failure of this package. Its message is one sentence for people, and says what to do."""

    exit_code = 2


class LabelsInvalid(AnalysisError):
    """The labels asked for are not there, cannot be read, or leave no query."""


class ReportFailed(AnalysisError):
    """A report cannot be written where it should be."""

    exit_code = 74


class RuleInvalid(AnalysisError):
    """A rule of what to keep is not one."""


class RunInvalid(AnalysisError):
    """There is no such run of `dups --apply`, or it cannot be undone."""


class StepFailed(AnalysisError):
    """The disk refuses what `dups --apply` would do. What was done before stays done, and is in the log."""

    exit_code = 74
