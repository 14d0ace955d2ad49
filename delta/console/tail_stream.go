package console

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// mostTails is how many tails a process has at once: each reads the log five times a second.
	mostTails = 20
	// tailBuffer is how many entries may wait for a browser, and tailRate how many a second it is sent: more would keep it busy with what nobody can read.
	tailBuffer, tailRate = 256, 50
	// tailBeat is how often a tail looks whether it has something to say that no entry has, and tailQuiet after how long without a word it says something so that no
	// proxy takes it for dead.
	tailBeat, tailQuiet = time.Second, 10 * time.Second
	// tailLasts is how long a tail goes on. The browser comes again by itself, and is asked again who it is.
	tailLasts = 10 * time.Minute
	// tailPatience is how long a browser may take to read what it was sent.
	tailPatience = 30 * time.Second
	// tailRetryAfter and tailFailedAfter are after how many milliseconds a browser comes again, and after a failure.
	tailRetryAfter, tailFailedAfter = "1000", "15000"
)

// tailStreamer is a tail that a browser reads.
type tailStreamer struct {
	*handler
	filter tailFilter
	w      http.ResponseWriter
	// entries are those that wait to be sent. The log waits where they are full; what happens in this process is dropped, and counted.
	entries chan tailEntry
	lost    atomic.Int64
	failed  chan struct{} // closed when the log cannot be read

	// passed is how far the log was read, and told how far the browser knows.
	passed, told delta.ChangePosition
	sentAt       time.Time
	// sent and dropped are those of the second that began at second.
	second        time.Time
	sent, dropped int
}

// tailEvents sends entries as they come, as Server-Sent Events, until the browser goes away. Whatever reads for it ends with it.
func (h *handler) tailEvents(w http.ResponseWriter, r *http.Request, _ string) {
	asked := r.URL.Query()
	filter, ok := tailFilterOf(asked)
	if !ok {
		h.problem(w, http.StatusBadRequest, "There is no such event.")
		return
	}
	if h.tails.Add(1) > mostTails {
		h.tails.Add(-1)
		w.Header().Set("Retry-After", "15")
		h.problem(w, http.StatusServiceUnavailable, "This process has as many live tails open as it may.")
		return
	}
	defer h.tails.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it until its end
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), tailLasts)
	s := &tailStreamer{handler: h, filter: filter, w: w, entries: make(chan tailEntry, tailBuffer), failed: make(chan struct{}), sentAt: time.Now()}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	after := delta.ChangePosition(cmp.Or(r.Header.Get("Last-Event-ID"), asked.Get("after")))
	reading.Go(func() { s.readLog(ctx, after) })
	reading.Go(func() { s.readEvents(ctx) })
	if filter.followed() {
		reading.Go(func() { s.follow(ctx) })
	}
	s.send(ctx)
}

// readLog hands on the entries of the log. Where it cannot be read on from the position, it says so and goes on with what comes. A log that was restored stays so
// until a client takes it over: that is said once, and looked for each second.
func (s *tailStreamer) readLog(ctx context.Context, after delta.ChangePosition) {
	isLost := false
	for ctx.Err() == nil {
		err, came := error(nil), false
		if after == "" {
			after, err = s.client.ChangesEnd(ctx)
		}
		if err == nil {
			came, err = s.handOnChanges(ctx, after)
		}
		isLost = isLost && !came
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, new(*delta.ChangePositionError)), errors.As(err, new(*delta.InputError)):
			after = ""
			if isLost {
				_ = backoff.Pause(ctx, tailBeat) // the loop looks at ctx
				continue
			}
			isLost = true
			s.hand(ctx, noteOf("What came before this is missing: the log cannot be read on from where this page was, because entries were removed or the database was restored."))
		default:
			s.config.Logger.Warn("delta: console: a live tail cannot read the log of changes", "error", err)
			close(s.failed)
			return
		}
	}
}

// handOnChanges hands on what follows a position, and reports whether anything came.
func (s *tailStreamer) handOnChanges(ctx context.Context, after delta.ChangePosition) (came bool, err error) {
	for change, err := range s.client.Changes(ctx, after, s.filter.kinds()...) {
		if err != nil {
			return came, err
		}
		came = true
		entry := s.entryOfChange(change)
		entry.isHidden = !s.filter.wants(&entry)
		if !s.hand(ctx, entry) {
			break
		}
	}
	return came, ctx.Err()
}

// hand has an entry sent, and waits until there is room for it.
func (s *tailStreamer) hand(ctx context.Context, entry tailEntry) bool {
	select {
	case s.entries <- entry:
		return true
	case <-ctx.Done():
		return false
	}
}

// readEvents hands on what the client of this process does, where it runs. The client waits for nobody, so what finds no room is counted.
func (s *tailStreamer) readEvents(ctx context.Context) {
	events, unsubscribe := s.client.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed, delta.EventCategoryObjectDeleted, delta.EventCategoryObjectFinalized)
	defer unsubscribe()
	logs := map[string]bool{}
	for {
		select {
		case event, open := <-events:
			if !open {
				return // the client has stopped
			}
			kind := event.Resource.ObjectKind
			if _, known := logs[kind]; !known {
				logs[kind], _ = s.logs(kind)
			}
			entry, ok := s.entryOfEvent(&event, logs[kind])
			if !ok || !s.filter.wants(&entry) {
				continue
			}
			select {
			case s.entries <- entry:
			default:
				s.lost.Add(1)
			}
		case <-ctx.Done():
			return
		}
	}
}

// follow looks at the one resource that the filter names, and hands on how it stands, and each change of that. What changes twice between two looks
// is seen once.
func (s *tailStreamer) follow(ctx context.Context) {
	type standing struct {
		generation, syncs int64
		state             string
		attempt           int
	}
	var last standing
	for ctx.Err() == nil {
		if row, err := s.client.Get(ctx, s.filter.kind, s.filter.id); err == nil { // what cannot be read is looked for again
			if now := (standing{row.Generation, row.SyncCount, string(row.State), row.Attempt}); now != last {
				last = now
				if entry := s.entryOfRow(tailState, time.Now(), row); s.filter.wants(&entry) {
					s.hand(ctx, entry)
				}
			}
		}
		_ = backoff.Pause(ctx, tailBeat) // the loop looks at ctx
	}
}

// send sends entries until ctx ends, the browser does not read, or the log fails.
func (s *tailStreamer) send(ctx context.Context) {
	beat := time.NewTicker(tailBeat)
	defer beat.Stop()
	if !s.write("retry: " + tailRetryAfter + "\n: live\n\n") {
		return
	}
	for {
		ok := true
		select {
		case entry := <-s.entries:
			ok = s.sendEntry(&entry)
		case <-beat.C:
			ok = s.sendBeat()
		case <-s.failed:
			s.sendNote(noteOf("The log of changes cannot be read; the log of the console says why. It is tried again."), "retry: "+tailFailedAfter+"\n")
			return
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// sendEntry sends an entry, or counts it where there were too many in this second.
func (s *tailStreamer) sendEntry(entry *tailEntry) bool {
	s.passed = cmp.Or(entry.position, s.passed)
	if entry.isHidden {
		return true
	}
	if now := time.Now(); now.Sub(s.second) >= time.Second {
		if !s.sendDropped() {
			return false
		}
		s.second, s.sent = now, 0
	}
	if s.sent++; s.sent > tailRate && entry.Note == "" {
		s.dropped++
		return true
	}
	return s.sendNote(*entry, s.idLine())
}

// sendBeat says what no entry has said: how many were dropped, how far the log was read where nothing of it was chosen, and that this goes on.
func (s *tailStreamer) sendBeat() bool {
	if !s.sendDropped() {
		return false
	}
	switch {
	case time.Since(s.sentAt) < tailQuiet:
		return true
	case s.passed != s.told:
		return s.write(s.idLine() + "\n") // it has no data, so that the browser only notes the position
	}
	return s.write(": live\n\n")
}

func (s *tailStreamer) sendDropped() bool {
	n := s.dropped + int(s.lost.Swap(0))
	s.dropped = 0
	return n == 0 || s.sendNote(noteOfDropped(n), s.idLine())
}

// idLine says how far the log was read: the browser sends it back when it comes again.
func (s *tailStreamer) idLine() string {
	if s.passed == "" {
		return ""
	}
	s.told = s.passed
	return "id: " + string(s.passed) + "\n"
}

// sendNote sends an entry, as the page shows it, after other fields of the event.
func (s *tailStreamer) sendNote(entry tailEntry, fields string) bool {
	var line bytes.Buffer
	if err := templates.ExecuteTemplate(&line, "tail-entry", entry); err != nil {
		s.config.Logger.Error("delta: console: making an entry of the live tail", "error", err)
		return false
	}
	text := fields
	for part := range bytes.Lines(line.Bytes()) {
		text += "data: " + string(bytes.TrimRight(part, "\r\n")) + "\n"
	}
	return s.write(text + "\n")
}

// write sends text, and reports whether the browser still reads. A server's WriteTimeout begins again with it.
func (s *tailStreamer) write(text string) bool {
	controller := http.NewResponseController(s.w)
	_ = controller.SetWriteDeadline(time.Now().Add(tailPatience)) // a writer that cannot leaves it to the server
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	s.sentAt = time.Now()
	return controller.Flush() == nil
}
