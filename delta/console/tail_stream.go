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
	// maxTails is how many tails a process serves at once: each reads the log five times a second.
	maxTails = 20
	// tailBuffer is how many entries may wait for a browser, and tailRate how many are sent to it a second: nobody can read more.
	tailBuffer, tailRate = 256, 50
	// tailInterval is how often a tail sends the news that no entry carries. After tailKeepAlive without any, it sends a comment, so that no proxy closes
	// the connection as idle.
	tailInterval, tailKeepAlive = time.Second, 10 * time.Second
	// tailTimeout is how long a tail lasts. Then the browser reconnects by itself, and is authenticated again.
	tailTimeout = 10 * time.Minute
	// tailWriteTimeout is how long a browser may take to read what it was sent.
	tailWriteTimeout = 30 * time.Second
	// tailRetryAfter is after how many milliseconds a browser reconnects, and tailFailedAfter the same after a failure.
	tailRetryAfter, tailFailedAfter = "1000", "15000"
)

// tailStreamer is a tail that a browser reads.
type tailStreamer struct {
	*handler
	filter tailFilter
	w      http.ResponseWriter
	// entries wait to be sent. If the buffer is full, the reader of the log waits, but events of this process are dropped and counted.
	entries chan tailEntry
	lost    atomic.Int64
	failed  chan struct{} // closed when the log cannot be read

	// passed is how far the log was read, and announced how far the browser knows that.
	passed, announced delta.ChangePosition
	sentAt            time.Time
	// sent and dropped count the entries of the second that began at second.
	second        time.Time
	sent, dropped int
}

// streamTail sends entries as Server-Sent Events as they come, until the browser disconnects. It ends all its readers before it returns.
func (h *handler) streamTail(w http.ResponseWriter, r *http.Request, _ string) {
	asked := r.URL.Query()
	filter, ok := tailFilterOf(asked)
	if !ok {
		h.showProblem(w, http.StatusBadRequest, "There is no such event.")
		return
	}
	if h.tails.Add(1) > maxTails {
		h.tails.Add(-1)
		w.Header().Set("Retry-After", "15")
		h.showProblem(w, http.StatusServiceUnavailable, "This process has as many live tails open as it may.")
		return
	}
	defer h.tails.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it until its end
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), tailTimeout)
	s := &tailStreamer{handler: h, filter: filter, w: w, entries: make(chan tailEntry, tailBuffer), failed: make(chan struct{}), sentAt: time.Now()}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	after := delta.ChangePosition(cmp.Or(r.Header.Get("Last-Event-ID"), asked.Get("after")))
	reading.Go(func() { s.readLog(ctx, after) })
	reading.Go(func() { s.readEvents(ctx) })
	if filter.isOneResource() {
		reading.Go(func() { s.followResource(ctx) })
	}
	s.sendEntries(ctx)
}

// readLog queues the entries of the log. If the log cannot be read from the position, it sends a note and continues with new entries. A restored log
// fails until a client takes it over: the note is sent once, and the log is tried each second.
func (s *tailStreamer) readLog(ctx context.Context, after delta.ChangePosition) {
	isLost := false
	for ctx.Err() == nil {
		err, came := error(nil), false
		if after == "" {
			after, err = s.client.ChangesEnd(ctx)
		}
		if err == nil {
			came, err = s.queueChanges(ctx, after)
		}
		isLost = isLost && !came
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, new(*delta.ChangePositionError)), errors.As(err, new(*delta.InputError)):
			after = ""
			if isLost {
				_ = backoff.Pause(ctx, tailInterval) // the loop checks ctx
				continue
			}
			isLost = true
			s.queueEntry(ctx, newNote("Entries before this one are missing: the log cannot be read from the position of this page, because entries were removed or the database was restored."))
		default:
			s.config.Logger.Warn("delta: console: a live tail cannot read the log of changes", "error", err)
			close(s.failed)
			return
		}
	}
}

// queueChanges queues the changes after a position, and reports whether there were any.
func (s *tailStreamer) queueChanges(ctx context.Context, after delta.ChangePosition) (came bool, err error) {
	for change, err := range s.client.Changes(ctx, after, s.filter.kinds()...) {
		if err != nil {
			return came, err
		}
		came = true
		entry := s.entryOfChange(change)
		entry.isHidden = !s.filter.isMatch(&entry)
		if !s.queueEntry(ctx, entry) {
			break
		}
	}
	return came, ctx.Err()
}

// queueEntry queues an entry, and waits until there is room for it. It returns false if ctx ends first.
func (s *tailStreamer) queueEntry(ctx context.Context, entry tailEntry) bool {
	select {
	case s.entries <- entry:
		return true
	case <-ctx.Done():
		return false
	}
}

// readEvents queues the events of this process's client, if it runs. The client does not wait for subscribers, so events without room are counted and dropped.
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
				logs[kind], _ = s.hasLog(kind)
			}
			entry, ok := s.entryOfEvent(&event, logs[kind])
			if !ok || !s.filter.isMatch(&entry) {
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

// followResource reads the one resource that the filter names each second, and queues each change of its state. Two changes between two reads are
// seen as one.
func (s *tailStreamer) followResource(ctx context.Context) {
	type standing struct {
		generation, syncs int64
		state             string
		attempt           int
	}
	var last standing
	for ctx.Err() == nil {
		if row, err := s.client.Get(ctx, s.filter.kind, s.filter.id); err == nil { // after an error, it is read again in a second
			if now := (standing{row.Generation, row.SyncCount, string(row.State), row.Attempt}); now != last {
				last = now
				if entry := s.entryOfRow(tailState, time.Now(), row); s.filter.isMatch(&entry) {
					s.queueEntry(ctx, entry)
				}
			}
		}
		_ = backoff.Pause(ctx, tailInterval) // the loop checks ctx
	}
}

// sendEntries sends entries until ctx ends, the browser stops reading, or the log fails.
func (s *tailStreamer) sendEntries(ctx context.Context) {
	beat := time.NewTicker(tailInterval)
	defer beat.Stop()
	if !s.writeText("retry: " + tailRetryAfter + "\n: live\n\n") {
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
			s.writeEntry(newNote("The log of changes cannot be read; the log of the console says why. The page will reconnect."), "retry: "+tailFailedAfter+"\n")
			return
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// sendEntry sends an entry, or counts it as dropped if there were too many in this second.
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
	return s.writeEntry(*entry, s.idLine())
}

// sendBeat sends what no entry carries: how many entries were dropped, and how far the log was read if no entry matched; or else a comment, to keep
// the connection alive.
func (s *tailStreamer) sendBeat() bool {
	if !s.sendDropped() {
		return false
	}
	switch {
	case time.Since(s.sentAt) < tailKeepAlive:
		return true
	case s.passed != s.announced:
		return s.writeText(s.idLine() + "\n") // without data, so that the browser only notes the position
	}
	return s.writeText(": live\n\n")
}

func (s *tailStreamer) sendDropped() bool {
	n := s.dropped + int(s.lost.Swap(0))
	s.dropped = 0
	return n == 0 || s.writeEntry(droppedNote(n), s.idLine())
}

// idLine returns the position up to which the log was read. The browser sends it back when it reconnects.
func (s *tailStreamer) idLine() string {
	if s.passed == "" {
		return ""
	}
	s.announced = s.passed
	return "id: " + string(s.passed) + "\n"
}

// writeEntry writes an entry as HTML, after other fields of the event.
func (s *tailStreamer) writeEntry(entry tailEntry, fields string) bool {
	var line bytes.Buffer
	if err := templates.ExecuteTemplate(&line, "tail-entry", entry); err != nil {
		s.config.Logger.Error("delta: console: rendering an entry of the live tail", "error", err)
		return false
	}
	text := fields
	for part := range bytes.Lines(line.Bytes()) {
		text += "data: " + string(bytes.TrimRight(part, "\r\n")) + "\n"
	}
	return s.writeText(text + "\n")
}

// writeText writes and flushes text, and reports whether the browser still reads. It extends the server's WriteTimeout.
func (s *tailStreamer) writeText(text string) bool {
	controller := http.NewResponseController(s.w)
	_ = controller.SetWriteDeadline(time.Now().Add(tailWriteTimeout)) // a writer without deadlines keeps that of the server
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	s.sentAt = time.Now()
	return controller.Flush() == nil
}
