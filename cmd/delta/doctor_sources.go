package main

import (
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
)

// sourcesLate is how far a source may be behind before that is worth a warning.
const sourcesLate = 15 * time.Minute

// sources looks for sources that do not run, wait, or are behind, and says which read all of what there is.
func (f *findings) sources(kinds []delta.KindStatus, now time.Time) {
	for _, k := range kinds {
		for i := range k.Sources {
			f.source(&k.Sources[i], now)
		}
	}
}

func (f *findings) source(s *delta.SourceStatus, now time.Time) {
	add := func(status health, todo, detail string, args ...any) {
		f.addKind("source", s.Kind, status, fmt.Sprintf("source %q ", s.Name)+fmt.Sprintf(detail, args...)+behind(s), todo)
	}
	switch {
	case s.Phase == delta.SourceWaiting:
		add(healthWarn, remedy.EndTransaction(s.HeldBy.PID, s.HeldBy.Prepared), "has waited for %s for a lock that is held by %s", short(now.Sub(s.SeenAt)), s.HeldBy)
	case s.IsSilent:
		add(healthFail, remedy.RunSource(s.Kind, s.Name), "does not run: nothing was heard of it for %s, and nothing is taken from it", short(now.Sub(s.SeenAt)))
	case s.Error != "":
		add(healthFail, remedy.CorrectSource, "fails, %s in a row: %s", counted(int64(s.Failures), "time"), s.Error)
	case s.Lag != nil && *s.Lag >= sourcesLate:
		add(healthWarn, remedy.CatchUpSource, "is behind (%s)", doing(s, now))
	case s.Phase == delta.SourceReading:
		add(healthOK, "", "is %s", doing(s, now))
	}
}

// doing describes the phase of a source that runs.
func doing(s *delta.SourceStatus, now time.Time) string {
	text := string(s.Phase)
	if s.Phase == delta.SourceReading {
		text += " all of what there is, since " + short(now.Sub(s.Since))
	}
	if s.Reason != "" {
		text += ", because: " + s.Reason
	}
	return text
}

// behind is how far a source is behind, as far as that is known.
func behind(s *delta.SourceStatus) (text string) {
	if s.Lag != nil && *s.Lag >= time.Minute {
		text += fmt.Sprintf("; what has changed in the last %s is not written", short(*s.Lag))
	}
	if s.BehindBytes != nil && *s.BehindBytes > 0 {
		text += fmt.Sprintf("; %s of the log of its database are before it", size(*s.BehindBytes))
	}
	if s.BehindMessages != nil && *s.BehindMessages > 0 {
		text += fmt.Sprintf("; %s before it", isOrAre(*s.BehindMessages, "message"))
	}
	return text
}

// size is a number of bytes for a person.
func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
