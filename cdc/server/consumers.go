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

// maxConsumers is how many consumers may share a slot, as in a [cdc.Fanout].
const maxConsumers = 100

var consumerName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// errConsumerRemoved says that a consumer was removed.
var errConsumerRemoved = newProblem(http.StatusNotFound, "unknown_consumer", "the consumer was removed: PUT /v2/slots/{name}/consumers/{consumer} creates it again")

// checkConsumers refuses invalid names and duplicates.
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
		return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("consumers: there are %d, and at most %d are allowed", len(names), maxConsumers))
	}
	return nil
}

// sharedSlot is a slot that several consumers read. It is open while at least one of them reads.
type sharedSlot struct {
	mu         sync.Mutex
	fanout     *cdc.Fanout // nil while no consumer reads
	unregister func()
	readers    int
}

// findSharedSlot returns the shared slot of a name, and creates it if needed.
func (s *Server) findSharedSlot(slot string) *sharedSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sharedSlots[slot] == nil {
		s.sharedSlots[slot] = &sharedSlot{}
	}
	return s.sharedSlots[slot]
}

// openSharedSlot opens a slot for its consumers unless it is open, with mu held.
func (s *Server) openSharedSlot(ctx context.Context, h *sharedSlot, sess *session) error {
	if h.fanout != nil {
		return nil
	}
	config := s.streamConfig(sess.slot)
	config.Publications = []string{sess.slot}
	fanout, err := cdc.OpenFanout(ctx, cdc.FanoutConfig{
		Config: config, Consumers: sess.owned.Consumers, BufferLimit: s.config.ConsumerBuffer, SlowConsumerTimeout: s.config.ConsumerPatience,
	})
	if errors.Is(err, cdc.ErrSlotBusy) {
		return newProblem(http.StatusConflict, "busy", "another server, or another program, reads the slot: all consumers of a slot must connect to the same server")
	}
	if err != nil {
		return err
	}
	h.fanout, h.unregister = fanout, s.streams.registerStream(sess.slot, fanout)
	return nil
}

// close closes the fan-out when no consumer reads, with mu held.
func (h *sharedSlot) close() {
	if h.readers > 0 || h.fanout == nil {
		return
	}
	h.unregister()
	h.fanout.Close()
	h.fanout = nil
}

// setConsumers updates the fan-out to the consumers in the publication's comment, which another server may have changed.
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
			_ = h.fanout.Remove(c.Name) // fails only if it does not exist
		}
	}
	for _, name := range names {
		if !known[name] {
			_ = h.fanout.Add(name)
		}
	}
}

// joinConsumer lets a session read as a consumer. leave ends that.
func (s *Server) joinConsumer(ctx context.Context, sess *session) (leave func(), err error) {
	h := s.findSharedSlot(sess.slot)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.openSharedSlot(ctx, h, sess); err != nil {
		return nil, err
	}
	h.setConsumersLocked(sess.owned.Consumers)
	reader, err := s.attachConsumer(ctx, h.fanout, sess)
	if err != nil {
		h.close()
		return nil, err
	}
	h.readers++
	sess.source = reader
	uncount := s.streams.countClient()
	return func() {
		sess.flushConfirmed()
		reader.Close()
		uncount()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.readers--
		h.close()
	}, nil
}

// attachConsumer attaches a session to its consumer at the client's token, or starts a resync if there is none.
func (s *Server) attachConsumer(ctx context.Context, fanout *cdc.Fanout, sess *session) (reader *cdc.Consumer, err error) {
	if sess.resume == 0 {
		tables, err := s.resyncTables(ctx, sess)
		if err != nil {
			return nil, err
		}
		if reader, err = fanout.Join(sess.consumer); err != nil {
			return nil, err
		}
		sess.resync = &resync{fanout: fanout, tables: tables}
	} else {
		if err := s.checkLogEnd(ctx, sess.resume); err != nil {
			return nil, err
		}
		if reader, err = fanout.Attach(sess.consumer, sess.resume); err != nil {
			return nil, err
		}
		sess.passed, sess.resume = sess.resume, 0 // the fan-out skips what the token covers
	}
	for _, c := range fanout.Consumers() {
		if c.Name == sess.consumer {
			sess.last = c.Acknowledged
		}
	}
	return reader, nil
}

// resync is the state of a consumer that starts over: the tables are read beside the changes, one after the other, and their rows go to
// this consumer only.
type resync struct {
	fanout *cdc.Fanout
	tables []cdc.PublishedTable // not read yet
	reads  *cdc.Backfill        // the table being read
}

// resyncTables returns the tables of the slot that the client wants.
func (s *Server) resyncTables(ctx context.Context, sess *session) ([]cdc.PublishedTable, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_publication_rel r ON r.prrelid = c.oid JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $1 ORDER BY 1, 2`, sess.slot)
	if err != nil {
		return nil, err
	}
	var tables []cdc.PublishedTable
	var t cdc.PublishedTable
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Table}, func() error {
		if sess.encoder.filter.wantsTable(t.Schema + "." + t.Table) {
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}

// readNextTable starts to read the next table, or sends resynced after the last one. From then on the client gets tokens.
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

// stopResync stops a resync that has not ended.
func (s *session) stopResync() {
	if s.resync != nil && s.resync.reads != nil {
		s.resync.reads.Stop()
	}
}

// sendResynced tells the client that all rows of the tables were sent.
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

// consumerJSON is a consumer in an answer.
type consumerJSON struct {
	Name string `json:"name"`
	// Attached reports whether a client of this server reads as the consumer, and Lost whether the consumer must resync.
	Attached bool `json:"attached"`
	Lost     bool `json:"lost"`
	// The others are null while no consumer of the slot reads from this server. Each consumer is then at most as far behind as the slot.
	Acknowledged *cdc.LSN `json:"acknowledged"`
	LagBytes     *int64   `json:"lag_bytes"`
	Waiting      *int     `json:"waiting"`
}

// describeConsumers returns the consumers of a slot with their positions.
func (s *Server) describeConsumers(slot string, names []string) []consumerJSON {
	if len(names) == 0 {
		return nil
	}
	statuses := map[string]cdc.ConsumerStatus{}
	if h := s.findSharedSlot(slot); h.mu.TryLock() { // do not wait for a slot that is being opened, which may take long
		if h.fanout != nil {
			for _, c := range h.fanout.Consumers() {
				statuses[c.Name] = c
			}
		}
		h.mu.Unlock()
	}
	all := make([]consumerJSON, 0, len(names))
	for _, name := range names {
		one := consumerJSON{Name: name}
		if c, known := statuses[name]; known {
			one.Attached, one.Lost = c.Attached, c.Lost
			one.Acknowledged, one.LagBytes, one.Waiting = &c.Acknowledged, &c.LagBytes, &c.Waiting
		}
		all = append(all, one)
	}
	return all
}

// serveAddConsumer adds a consumer to a slot.
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

// serveRemoveConsumer removes a consumer, so that the slot no longer waits for it.
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

// changeConsumers changes the consumers in the comment of the slot's publication, and those of this server. Other servers read the comment
// at their next heartbeat.
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

// checkConsumerRequest checks the parameters of a client against the consumers of the slot.
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
		return newProblem(http.StatusBadRequest, "bad_resume", "a consumer must say where it is: resume= with the token of the slot or of its last message; or resync=true, to start over with the rows of the tables")
	}
	return nil
}
