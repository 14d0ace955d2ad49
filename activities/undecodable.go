package activities

import (
	"encoding/json"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// The wait grows with the time since the object first failed to decode, within these bounds. At first it is short,
	// because during a rolling deploy chance decides which worker gets the resource; later it is long, because a
	// million such resources are as many claims.
	undecodableShare   = 8
	minUndecodableWait = time.Second
	maxUndecodableWait = 5 * time.Minute
)

// encodeUndecodable makes the entry for the row's errors. If the latest entry has the same error, it is kept, with its
// time. Such an entry has attempt 0, because there was none.
func (one *claimed) encodeUndecodable(now time.Time) (err error) {
	if one.encoded != nil {
		return nil
	}
	if n := len(one.worked.Errors); n > 0 {
		var latest deltatype.AttemptError
		if json.Unmarshal(one.worked.Errors[n-1], &latest) == nil && latest.Attempt == 0 && latest.Error == shorten.Text(one.outcome.Error, maxErrorBytes) {
			one.encoded = one.worked.Errors[n-1]
			return nil
		}
	}
	one.encoded, err = encodeError(now, 0, one.outcome)
	return err
}

// isNews reports whether the row's latest error is another one.
func (one *claimed) isNews() bool {
	n := len(one.worked.Errors)
	return n == 0 || string(one.worked.Errors[n-1]) != string(one.encoded)
}

// undecodableWait returns how long the resource waits for the next worker.
func (one *claimed) undecodableWait(now time.Time) time.Duration {
	var entry deltatype.AttemptError
	_ = json.Unmarshal(one.encoded, &entry) // it was made, or read, a moment ago
	return min(max(now.Sub(entry.At)/undecodableShare, minUndecodableWait), maxUndecodableWait)
}

// warnUndecodable logs the resources of a set that have begun to wait for a worker that can decode them.
func (e *execution) warnUndecodable(set []*claimed) {
	var first *claimed
	count := 0
	for _, one := range set {
		if one.outcome.Verdict == VerdictUndecodable && !one.counted && one.isNews() {
			if count++; first == nil {
				first = one
			}
		}
	}
	if first != nil {
		e.Logger.Warn("stored objects do not decode; their resources wait for a worker that understands them, or for an inform that replaces them",
			append(e.logFields(first.worked), "resources", count, "error", first.outcome.Error)...)
	}
}
