package console

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// mostBulkRuns is how many commands for many resources are remembered, the latest, and mostBulkGoing how many of them go on at once.
	mostBulkRuns, mostBulkGoing = 100, 4
	// bulkTimeout bounds one of them.
	bulkTimeout = 24 * time.Hour
)

// bulkRuns are the commands for many resources that this process was given. They go on if the browser goes away. They do not survive the process: what a
// command has done is done, and the same filter chooses the rest again.
type bulkRuns struct {
	mu  sync.Mutex
	all []*bulkRun
}

// bulkRun is one of them.
type bulkRun struct {
	id        string
	name      CommandName
	command   delta.BulkCommand
	user      string
	fields    []field
	filter    delta.Filter
	startedAt time.Time
	// of is how many the user was told that they are; 0 where nobody has counted them.
	of int

	mu       sync.Mutex
	progress bulkState
	stopping bool
}

// bulkState is how a command stands.
type bulkState struct {
	// Done is how many resources it was given to.
	Done                   int
	Ended, Stopped, Failed bool
	Stopping               bool
	// kinds and ids name the first of them, remembered in number.
	kinds      []string
	ids        map[string][]string
	remembered int
}

// errStopped ends a command that somebody has stopped.
var errStopped = errors.New("stopped by a user")

// start begins a run, and reports whether it did: it does not where too many go on. record is that of the command.
func (s *bulkRuns) start(client *delta.Client, run *bulkRun, record int64, log *slog.Logger) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	going := 0
	for _, run := range s.all {
		if !run.now().Ended {
			going++
		}
	}
	if going >= mostBulkGoing {
		return false
	}
	run.id, run.startedAt, run.progress.ids = rand.Text(), time.Now(), map[string][]string{}
	if len(s.all) == mostBulkRuns { // one that goes on stays: it could not be stopped otherwise
		oldest := slices.IndexFunc(s.all, func(r *bulkRun) bool { return r.now().Ended })
		s.all = slices.Delete(s.all, oldest, oldest+1)
	}
	s.all = append(s.all, run)
	log = log.With("run", run.id)
	// Before and after: a process that dies between them has left a line too.
	log.Info("delta: console: command begins")
	go run.run(client, record, log)
	return true
}

func (r *bulkRun) run(client *delta.Client, record int64, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), bulkTimeout)
	defer cancel()
	done, err := client.CommandAll(ctx, r.command, r.filter, r.add)
	changed := int64(done)
	endCommand(client, log, record, &changed, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Done, r.progress.Ended = done, true
	switch {
	case errors.Is(err, errStopped):
		r.progress.Stopped = true
		log.Info("delta: console: command was stopped", "count", done)
	case err != nil:
		r.progress.Failed = true
		log.Error("delta: console: command failed", "count", done, "error", err)
	default:
		log.Info("delta: console: command done", "count", done)
	}
}

// add notes a page of rows that were changed, and the names of the first of them.
func (r *bulkRun) add(page []*deltatype.ResourceRow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.progress
	p.Done += len(page)
	for _, row := range page[:min(len(page), pageRows-p.remembered)] {
		if p.ids[row.ObjectKind] == nil {
			p.kinds = append(p.kinds, row.ObjectKind)
		}
		p.ids[row.ObjectKind] = append(p.ids[row.ObjectKind], row.ObjectID)
		p.remembered++
	}
	if r.stopping {
		return errStopped
	}
	return nil
}

func (r *bulkRun) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
}

// now is how it stands. Names are copied: more are added while a page is made.
func (r *bulkRun) now() bulkState {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.progress
	state.Stopping = r.stopping && !state.Ended
	state.kinds, state.ids = slices.Clone(state.kinds), map[string][]string{}
	for kind, ids := range r.progress.ids {
		state.ids[kind] = slices.Clone(ids)
	}
	return state
}

func (r *bulkRun) address() string { return "bulk-run?" + url.Values{"id": {r.id}}.Encode() }

// find returns a run; nil where there is none.
func (s *bulkRuns) find(id string) *bulkRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range s.all {
		if run.id == id {
			return run
		}
	}
	return nil
}
