package activities

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Types of the errors of attempts that have not synced their resource. The details of such an error are the [Step], so that the workflow
// goes on as after a success: see [HasStep]. They are in histories: never change one.
const (
	// AttemptFailed is that of an attempt that has failed, or with which the resource has degraded.
	AttemptFailed = stepErrors + "Failed"
	// AttemptSnoozed is that of one that was put off, AttemptSuperseded that of one whose failure does not matter any more, and
	// AttemptUnreadable that of one whose object does not decode here. They are benign: Temporal's metrics do not count them as failures.
	AttemptSnoozed    = stepErrors + "Snoozed"
	AttemptSuperseded = stepErrors + "Superseded"
	AttemptUnreadable = stepErrors + "Unreadable"

	stepErrors = "delta.Attempt"
)

// HasStep reports whether errors of a type are those of attempts, and have a [Step] in their details.
func HasStep(errorType string) bool { return strings.HasPrefix(errorType, stepErrors) }

// maxShownFailure bounds the text of an attempt's error in a history. The row has more of it.
const maxShownFailure = 1 << 10

// failure describes to Temporal an attempt that has not synced its resource.
type failure struct {
	errorType string
	// what says it without the text of an error, which may name the object.
	what, text string
	// isTextHidden is true where object ids, or what is encoded elsewhere, are kept from Temporal.
	isTextHidden bool
}

// withoutText is the failure as Temporal may know it where object ids are kept from it.
func (f *failure) withoutText() *failure {
	if f == nil {
		return nil
	}
	return &failure{errorType: f.errorType, what: f.what, isTextHidden: true}
}

// describeFailure is that of a claimed row whose outcome was written; written is nil where the row went on without it. It is nil for an attempt that did
// not fail, or was none.
func (one *claimed) describeFailure(written *db.WriteOutcomesRow) *failure {
	f := failure{errorType: AttemptFailed, what: one.describeAttempt(), text: one.outcome.Error}
	switch one.outcome.Verdict {
	case VerdictFailed, VerdictDegraded:
		if written == nil {
			f.errorType, f.what = AttemptSuperseded, f.what+" ended after the resource had gone on without it"
		} else if written.Generation != one.worked.Generation {
			f.errorType, f.what = AttemptSuperseded, fmt.Sprintf("%s is superseded by generation %d", f.what, written.Generation)
		}
	case VerdictSnoozed:
		f.errorType, f.what = AttemptSnoozed, f.what+" was snoozed"
	case VerdictUnreadable:
		f.errorType, f.what = AttemptUnreadable, "the object does not decode here"
	case VerdictSynced, VerdictDeleted, VerdictReleased, VerdictFinalized, VerdictWithheld:
		return nil
	}
	return &f
}

func (one *claimed) describeAttempt() string {
	if one.worked.IsFinalizing() {
		return fmt.Sprintf("attempt %d of Finalize", one.worked.Attempt)
	}
	return fmt.Sprintf("attempt %d of %d", one.worked.Attempt, one.worked.MaxAttempts)
}

// asError is the error of a step whose attempt has failed, nil for others. Temporal does not repeat the activity for it: the outcome was written, and
// the step says what follows.
func (s Step) asError() error {
	f := s.failure
	if f == nil {
		return nil
	}
	message := f.what + ": " + shorten.Text(f.text, maxShownFailure)
	if f.isTextHidden {
		message = f.what + "; the row and the log of the client say why: its text is kept from Temporal"
	}
	options := temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{s}}
	if f.errorType != AttemptFailed {
		options.Category = temporal.ApplicationErrorCategoryBenign
	}
	return temporal.NewApplicationErrorWithOptions(message, f.errorType, options)
}
