package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// mostConsumers is how many may share a slot, as in a [cdc.Fanout].
const maxConsumers = 100

var consumerName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// errConsumerRemoved is a consumer that somebody has removed.
var errConsumerRemoved = newProblem(http.StatusNotFound, "unknown_consumer", "the consumer was removed: PUT /v2/slots/{name}/consumers/{consumer} makes it anew")

// checkConsumers refuses names that are none, or come twice.
func checkConsumers(names []string) error {
	for i, name := range names {
		switch {
		case !consumerName.MatchString(name):
			return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("consumers %.100q: it must be 1 to 63 of the characters a-z, 0-9 and _", name))
		case slices.Contains(names[:i], name):
			return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("consumers %q: each name once", name))
		}
	}
	if len(names) > maxConsumers {
		return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("consumers: there are %d, and may be %d", len(names), maxConsumers))
	}
	return nil
}

// share is a slot that several consumers read. It is open while one of them does.
type sharedSlot struct {
	mu         sync.Mutex
	fanout     *cdc.Fanout // nil while nobody reads
	unregister func()
	readers    int
}

// findSharedSlot is the one of a slot.
func (s *Server) findSharedSlot(slot string) *sharedSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sharedSlots[slot] == nil {
		s.sharedSlots[slot] = &sharedSlot{}
	}
	return s.sharedSlots[slot]
}

// openSharedSlot opens a slot for its consumers if nobody reads it yet, with mu held.
func (s *Server) openSharedSlot(ctx context.Context, h *sharedSlot, one *session) error {
	if h.fanout != nil {
		return nil
	}
	config := s.streamConfig(one.slot)
	config.Publications = []string{one.slot}
	fanout, err := cdc.OpenFanout(ctx, cdc.FanoutConfig{
		Config: config, Consumers: one.owned.Consumers, BufferLimit: s.config.ConsumerBuffer, Patience: s.config.ConsumerPatience,
	})
	if errors.Is(err, cdc.ErrSlotBusy) {
		return newProblem(http.StatusConflict, "busy", "another server, or somebody else, reads the slot: all consumers of a slot have to come to the same server")
	}
	if err != nil {
		return err
	}
	h.fanout, h.unregister = fanout, s.streams.registerStream(one.slot, fanout)
	return nil
}

// close ends it once nobody reads, with mu held.
func (h *sharedSlot) close() {
	if h.readers > 0 || h.fanout == nil {
		return
	}
	h.unregister()
	h.fanout.Close()
	h.fanout = nil
}

// setConsumers has the consumers be those that are noted, which another server may have changed.
func (h *sharedSlot) setConsumers(names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.setConsumersLocked(names)
}

func (h *sharedSlot) setConsumersLocked(names []string) {
	if h.fanout == nil {
		return
	}
	known := map[string]bool{}
	for _, c := range h.fanout.Consumers() {
		known[c.Name] = true
		if !slices.Contains(names, c.Name) {
			_ = h.fanout.Remove(c.Name) // which only fails for one that is not there
		}
	}
	for _, name := range names {
		if !known[name] {
			_ = h.fanout.Add(name)
		}
	}
}

// joinConsumer has a session read as a consumer. leave ends that.
func (s *Server) joinConsumer(ctx context.Context, one *session) (leave func(), err error) {
	h := s.findSharedSlot(one.slot)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.openSharedSlot(ctx, h, one); err != nil {
		return nil, err
	}
	h.setConsumersLocked(one.owned.Consumers)
	reader, err := s.attachConsumer(ctx, h.fanout, one)
	if err != nil {
		h.close()
		return nil, err
	}
	h.readers++
	one.source = reader
	uncount := s.streams.countClient()
	return func() {
		one.flushConfirmed()
		reader.Close()
		uncount()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.readers--
		h.close()
	}, nil
}

// attachConsumer finds where the consumer goes on, or has it begin anew.
func (s *Server) attachConsumer(ctx context.Context, fanout *cdc.Fanout, one *session) (reader *cdc.Consumer, err error) {
	if one.resume == 0 {
		tables, err := s.resyncTables(ctx, one)
		if err != nil {
			return nil, err
		}
		if reader, err = fanout.Join(one.consumer); err != nil {
			return nil, err
		}
		one.resync = &resync{fanout: fanout, tables: tables}
	} else {
		if err := s.checkLogEnd(ctx, one.resume); err != nil {
			return nil, err
		}
		if reader, err = fanout.Attach(one.consumer, one.resume); err != nil {
			return nil, err
		}
		one.passed, one.resume = one.resume, 0 // the fan-out passes over what it covers
	}
	for _, c := range fanout.Consumers() {
		if c.Name == one.consumer {
			one.last = c.Acknowledged
		}
	}
	return reader, nil
}

// resync is a consumer that begins anew: the tables are read beside the changes, one after the other, for it alone.
type resync struct {
	fanout *cdc.Fanout
	tables []cdc.PublishedTable // that are still to be read
	reads  *cdc.Backfill        // the one that is being read
}

// resyncTables are those of the slot that the client wants.
func (s *Server) resyncTables(ctx context.Context, one *session) ([]cdc.PublishedTable, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_publication_rel r ON r.prrelid = c.oid JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $1 ORDER BY 1, 2`, one.slot)
	if err != nil {
		return nil, err
	}
	var tables []cdc.PublishedTable
	var t cdc.PublishedTable
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Table}, func() error {
		if one.encoder.filter.wantsTable(t.Schema + "." + t.Table) {
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}

// readNextTable begins to read the next table, or says that all were read: from then on, there are tokens.
func (s *session) readNextTable(ctx context.Context) error {
	r := s.resync
	if len(r.tables) == 0 {
		s.resync = nil
		return s.sendResynced()
	}
	t := r.tables[0]
	r.tables = r.tables[1:]
	var err error
	if r.reads, err = r.fanout.Backfill(ctx, s.consumer, cdc.BackfillConfig{Schema: t.Schema, Table: t.Table}); err != nil {
		return err
	}
	reads := r.reads
	s.server.work.Go(func() {
		<-reads.Done()
		if err := reads.Err(); err != nil && !errors.Is(err, cdc.ErrClosed) {
			s.fail(err)
		}
	})
	return nil
}

// stopResync ends a resync that is not at its end.
func (s *session) stopResync() {
	if s.resync != nil && s.resync.reads != nil {
		s.resync.reads.Stop()
	}
}

// sendResynced says that all rows of the tables were sent.
func (s *session) sendResynced() error {
	s.mu.Lock()
	at := max(s.passed, s.last)
	s.mu.Unlock()
	token := s.resumeToken(at)
	e := newEncoder(nil)
	e.writeText(`{"type":"resynced","lsn":`)
	e.writeLSN(at)
	e.writeText(`,"resume":`)
	e.writeString(token)
	e.writeText(`}`)
	return s.sendMessage("resynced", e.toFrame(), token)
}

// consumerJSON is a consumer as it is answered.
type consumerJSON struct {
	Name string `json:"name"`
	// Attached tells that a client reads as it from this server, and Lost that it has to begin anew.
	Attached bool `json:"attached"`
	Lost     bool `json:"lost"`
	// The others are null while no consumer of the slot reads from this server: each is at most as far behind as the slot then.
	Acknowledged *cdc.LSN `json:"acknowledged"`
	LagBytes     *int64   `json:"lag_bytes"`
	Waiting      *int     `json:"waiting"`
}

// describeConsumers says how the consumers of a slot stand.
func (s *Server) describeConsumers(slot string, names []string) []consumerJSON {
	if len(names) == 0 {
		return nil
	}
	standing := map[string]cdc.ConsumerStatus{}
	if h := s.findSharedSlot(slot); h.mu.TryLock() { // it is held while the slot is opened, which may take long, and this is to be quick
		if h.fanout != nil {
			for _, c := range h.fanout.Consumers() {
				standing[c.Name] = c
			}
		}
		h.mu.Unlock()
	}
	all := make([]consumerJSON, 0, len(names))
	for _, name := range names {
		one := consumerJSON{Name: name}
		if c, known := standing[name]; known {
			one.Attached, one.Lost = c.Attached, c.Lost
			one.Acknowledged, one.LagBytes, one.Waiting = &c.Acknowledged, &c.LagBytes, &c.Waiting
		}
		all = append(all, one)
	}
	return all
}

// serveAddConsumer makes a consumer of a slot.
func (s *Server) serveAddConsumer(w http.ResponseWriter, r *http.Request) {
	name, consumer := r.PathValue("name"), r.PathValue("consumer")
	status := http.StatusOK
	err := checkConsumers([]string{consumer})
	if err == nil {
		err = s.changeConsumers(r.Context(), name, func(names []string) ([]string, error) {
			if slices.Contains(names, consumer) {
				return names, nil
			}
			status = http.StatusCreated
			names = append(names, consumer)
			return names, checkConsumers(names)
		})
	}
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	if status == http.StatusCreated {
		s.config.Logger.Info("cdc/server: a consumer was added", "slot", name, "consumer", consumer)
	}
	replyJSON(w, status, map[string]string{"slot": name, "consumer": consumer})
}

// serveRemoveConsumer has a slot wait for a consumer no longer.
func (s *Server) serveRemoveConsumer(w http.ResponseWriter, r *http.Request) {
	name, consumer := r.PathValue("name"), r.PathValue("consumer")
	err := s.changeConsumers(r.Context(), name, func(names []string) ([]string, error) {
		i := slices.Index(names, consumer)
		if i < 0 {
			return nil, unknownConsumer(consumer, names)
		}
		return slices.Delete(names, i, i+1), nil
	})
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	s.forgetAcks(sessionKey(name, consumer))
	s.config.Logger.Info("cdc/server: a consumer was removed", "slot", name, "consumer", consumer)
	w.WriteHeader(http.StatusNoContent)
}

func unknownConsumer(consumer string, names []string) error {
	text := fmt.Sprintf("consumer %.100q: the slot has none of this name", consumer)
	if len(names) > 0 {
		text += "; it has " + strings.Join(names, ", ")
	}
	return newProblem(http.StatusNotFound, "unknown_consumer", text)
}

// changeConsumers changes what the comment of the slot's publication says of its consumers, and those that read from this server. Those of another server
// follow within a heartbeat.
func (s *Server) changeConsumers(ctx context.Context, slot string, change func([]string) ([]string, error)) error {
	if _, err := s.findOwnSlot(ctx, slot); err != nil {
		return err
	}
	var names []string
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('delta stream consumers ' || $1, 0))`, slot); err != nil {
			return err
		}
		var comment string
		if err := tx.QueryRow(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1`, slot).Scan(&comment); err != nil {
			return err
		}
		var o ownedPublication
		if err := json.Unmarshal([]byte(comment), &o); err != nil || o.MadeBy != maker {
			return errUnpublished
		}
		changed, err := change(slices.Clone(o.Consumers))
		if err != nil {
			return err
		}
		names, o.Consumers = changed, changed
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		return commentOn(ctx, tx, slot, string(text))
	})
	if err == nil {
		s.findSharedSlot(slot).setConsumers(names)
	}
	return err
}

// checkConsumerRequest compares what a client asks for with what the slot has.
func (s *session) checkConsumerRequest(resync string, resume bool) error {
	switch names := s.owned.Consumers; {
	case s.consumer == "" && resync != "":
		return newProblem(http.StatusBadRequest, "invalid", "resync: it is for a consumer")
	case s.consumer == "" && len(names) > 0:
		return newProblem(http.StatusConflict, "consumer_needed", "the slot has consumers, and a client reads as one of them: consumer="+strings.Join(names, ", "))
	case s.consumer == "":
		return nil
	case !slices.Contains(names, s.consumer):
		return unknownConsumer(s.consumer, names)
	case resync != "" && resync != "true" && resync != "false":
		return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("resync %.40q: it must be true or false", resync))
	case !resume && resync != "true":
		return newProblem(http.StatusBadRequest, "bad_resume", "a consumer says where it is: resume= with the token of the slot or of its last message; or resync=true, to begin anew with the rows of the tables")
	}
	return nil
}
