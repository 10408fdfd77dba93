"""What can go wrong in measuring, and in finding duplicates.

AnalysisError
├── AlignmentUseless captions teach no more than was known without them
├── CaptionsInvalid  too few images have a caption
├── LabelsInvalid    there is nothing to measure by
├── MapImpossible    there is nothing to draw a map of
├── MapUnavailable   packages that maps need are not installed
├── NotApplied       spaces were changed while the recommended one was filled
├── ReportFailed     a report cannot be written
├── RuleInvalid      a rule of what to keep is not one, or fits nothing
├── RunInvalid       a run over duplicates that cannot be, go on, or be taken back
├── RunStopped       a run over duplicates met a disk that is full, broken or gone
├── TooFewImages     recipes cannot be compared on so few images
└── NothingToUndo    no space was made the default by tuning, or the one before is gone
"""

from __future__ import annotations


class AnalysisError(Exception):
    """Any failure of this package. Its message is one sentence for people, and says what to do."""

    exit_code = 2


class AlignmentUseless(AnalysisError):
    """Words learned from captions do not find surely more than before."""


class CaptionsInvalid(AnalysisError):
    """Captions that are not there, or are too few to learn from."""


class LabelsInvalid(AnalysisError):
    """The labels asked for are not there, cannot be read, or leave no query."""


class MapImpossible(AnalysisError):
    """No image can be on a map."""


class MapUnavailable(AnalysisError):
    """Packages that only maps need are not installed."""


class NotApplied(AnalysisError):
    """Somebody chose another default, or dropped the recommended space, while it was filled."""


class ReportFailed(AnalysisError):
    """A report cannot be written where it should be."""

    exit_code = 74


class RuleInvalid(AnalysisError):
    """A rule of what to keep is not one, or fits no file."""


class RunInvalid(AnalysisError):
    """A run over duplicates that cannot be begun, go on, or be taken back as it was asked."""


class RunStopped(AnalysisError):
    """The disk is full, broken or gone: the run has stopped, and can go on."""

    exit_code = 74


class TooFewImages(AnalysisError):
    """Recipes cannot be compared on so few images."""


class NothingToUndo(AnalysisError):
    """No space was made the default by tuning, or there is no way back to the one before."""
