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
	// maxBulkRuns is how many bulk commands are remembered, and maxBulkRunning how many of them run at once.
	maxBulkRuns, maxBulkRunning = 100, 4
	// bulkTimeout bounds one bulk command.
	bulkTimeout = 24 * time.Hour
)

// bulkRuns are the bulk commands of this process. They continue if the browser goes away, but not after the process ends: the changes that a command
// has made stay, and the same filter chooses the remaining resources.
type bulkRuns struct {
	mu  sync.Mutex
	all []*bulkRun
}

// bulkRun is one bulk command.
type bulkRun struct {
	id        string
	name      CommandName
	command   delta.BulkCommand
	user      string
	fields    []filterField
	filter    delta.Filter
	startedAt time.Time
	// of is the number of matches that the user saw; 0 if they were not counted.
	of int

	mu       sync.Mutex
	progress bulkState
	stopping bool
}

// bulkState is the progress of a bulk command.
type bulkState struct {
	// Done is how many resources the command was given to.
	Done                   int
	Ended, Stopped, Failed bool
	Stopping               bool
	// kinds and ids name the first of these resources, remembered in number.
	kinds      []string
	ids        map[string][]string
	remembered int
}

// errStopped ends a command that a user has stopped.
var errStopped = errors.New("stopped by a user")

// start starts a run and reports true, or reports false if too many are running. record is the id of the command's record.
func (s *bulkRuns) start(client *delta.Client, run *bulkRun, record int64, log *slog.Logger) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	going := 0
	for _, run := range s.all {
		if !run.currentState().Ended {
			going++
		}
	}
	if going >= maxBulkRunning {
		return false
	}
	run.id, run.startedAt, run.progress.ids = rand.Text(), time.Now(), map[string][]string{}
	if len(s.all) == maxBulkRuns { // a running one stays, otherwise it could not be stopped
		oldest := slices.IndexFunc(s.all, func(r *bulkRun) bool { return r.currentState().Ended })
		s.all = slices.Delete(s.all, oldest, oldest+1)
	}
	s.all = append(s.all, run)
	log = log.With("run", run.id)
	// Log before and after, so that a process that dies in between leaves a line.
	log.Info("delta: console: command begins")
	go run.run(client, record, log)
	return true
}

func (r *bulkRun) run(client *delta.Client, record int64, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), bulkTimeout)
	defer cancel()
	done, err := client.CommandAll(ctx, r.command, r.filter, r.addPage)
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

// addPage notes a page of changed rows, and the names of the first of them.
func (r *bulkRun) addPage(page []*deltatype.ResourceRow) error {
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

// currentState returns a copy of the progress, because more names are added while a page is rendered.
func (r *bulkRun) currentState() bulkState {
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

func (r *bulkRun) pageAddress() string { return "bulk-run?" + url.Values{"id": {r.id}}.Encode() }

// find returns a run, or nil if there is none.
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
