package activities

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Types of the errors of attempts that have not synced their resource. Their details are the [Step], so that the
// workflow goes on as after a success: see [HasStep]. Histories contain the types, so they never change.
const (
	// AttemptFailed is an attempt that has failed, or that has degraded the resource.
	AttemptFailed = stepErrors + "Failed"
	// AttemptSnoozed is an attempt that was snoozed, AttemptSuperseded one with a failure that no longer matters, and
	// AttemptUndecodable one with an object that does not decode here. They are benign: Temporal's metrics do not count
	// them as failures.
	AttemptSnoozed     = stepErrors + "Snoozed"
	AttemptSuperseded  = stepErrors + "Superseded"
	AttemptUndecodable = stepErrors + "Undecodable"

	stepErrors = "delta.Attempt"
)

// HasStep reports whether errors of a type have a [Step] in their details.
func HasStep(errorType string) bool { return strings.HasPrefix(errorType, stepErrors) }

// maxShownFailure bounds the text of an attempt's error in a history. The row has more of it.
const maxShownFailure = 1 << 10

// failure describes a failed attempt to Temporal.
type failure struct {
	errorType string
	// what has no text of an error, because that may name the object.
	what, text string
	// isTextHidden is set where object ids are kept from Temporal, or a data converter encodes payloads.
	isTextHidden bool
}

// withoutText returns the failure without text that might name an object.
func (f *failure) withoutText() *failure {
	if f == nil {
		return nil
	}
	return &failure{errorType: f.errorType, what: f.what, isTextHidden: true}
}

// describeFailure describes the failure of an attempt with a written outcome; written is nil where the row went on
// without it. It returns nil if the attempt did not fail, or there was none.
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
	case VerdictUndecodable:
		f.errorType, f.what = AttemptUndecodable, "the object does not decode here"
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

// asError returns the error of a step with a failed attempt, and nil for others. Temporal does not retry the activity:
// the outcome was written, and the step says how to go on.
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
