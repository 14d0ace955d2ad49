package delta

import (
	"fmt"
	"time"

	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

// sourcesLate is how far a source may be behind before that is worth a warning.
const sourcesLate = 15 * time.Minute

// checkSources looks for sources that do not run, wait, or are behind, and reports those that read everything.
func (f *findings) checkSources(kinds []KindStatus, now time.Time) {
	for _, k := range kinds {
		for i := range k.Sources {
			f.checkSource(&k.Sources[i], now)
		}
	}
}

func (f *findings) checkSource(s *SourceStatus, now time.Time) {
	add := func(state CheckState, todo, detail string, args ...any) {
		f.addKindCheck("source", s.Kind, state, fmt.Sprintf("source %q ", s.Name)+fmt.Sprintf(detail, args...)+describeLag(s), todo)
	}
	switch {
	case s.Phase == SourceWaiting:
		add(CheckWarning, remedy.EndTransaction(s.HeldBy.PID, s.HeldBy.Prepared), "has waited for %s for a lock that is held by %s", wording.Duration(now.Sub(s.SeenAt)), s.HeldBy)
	case s.IsSilent:
		add(CheckFailure, remedy.RunSource(s.Kind, s.Name), "does not run: nothing was heard of it for %s, and nothing is taken from it", wording.Duration(now.Sub(s.SeenAt)))
	case s.Error != "":
		add(CheckFailure, remedy.CorrectSource, "fails, %s in a row: %s", wording.Count(int64(s.Failures), "time"), s.Error)
	case s.Lag != nil && *s.Lag >= sourcesLate:
		add(CheckWarning, remedy.CatchUpSource, "is behind (%s)", describePhase(s, now))
	case s.Phase == SourceReading:
		add(CheckOK, "", "is %s", describePhase(s, now))
	}
}

// describePhase describes the phase of a running source.
func describePhase(s *SourceStatus, now time.Time) string {
	text := string(s.Phase)
	if s.Phase == SourceReading {
		text += " all of what there is, since " + wording.Duration(now.Sub(s.Since))
	}
	if s.Reason != "" {
		text += ", because: " + s.Reason
	}
	return text
}

// describeLag describes how far a source is behind, as far as that is known.
func describeLag(s *SourceStatus) (text string) {
	if s.Lag != nil && *s.Lag >= time.Minute {
		text += fmt.Sprintf("; what has changed in the last %s is not written", wording.Duration(*s.Lag))
	}
	if s.BehindBytes != nil && *s.BehindBytes > 0 {
		text += fmt.Sprintf("; %s of the log of its database are before it", wording.Size(*s.BehindBytes))
	}
	if s.BehindMessages != nil && *s.BehindMessages > 0 {
		text += fmt.Sprintf("; %s before it", wording.CountIs(*s.BehindMessages, "message"))
	}
	return text
}
