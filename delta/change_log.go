package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/db"
)

const (
	// partitionsAhead is for how many days after today partitions of the log are made: clients may be stopped for that
	// long.
	partitionsAhead = 3
	// trimPage is how many entries one statement removes from the default partition.
	trimPage = 5000
	// maxCountedChanges bounds the count of entries.
	maxCountedChanges = 100_000
)

// logsChanges reports whether a kind of the client has a log.
func (c *Client) logsChanges() bool {
	if c.config.Controllers == nil {
		return false
	}
	for _, r := range c.config.Controllers.byKind {
		if r.settings.Log {
			return true
		}
	}
	return false
}

// prepareChangeLog takes over a restored log, and makes partitions, before the client writes any entry.
func (e *engine) prepareChangeLog(ctx context.Context) error {
	if !e.client.logsChanges() {
		return nil
	}
	if err := e.adoptChanges(ctx); err != nil {
		return err
	}
	return e.makeChangePartitions(ctx)
}

// maintainChangeLog does the same while the client runs, and removes expired entries, even of kinds whose log was switched
// off.
func (e *engine) maintainChangeLog(ctx context.Context) error {
	if err := e.prepareChangeLog(ctx); err != nil {
		return err
	}
	if err := e.dropChangePartitions(ctx); err != nil {
		return err
	}
	keep, most := e.client.config.ChangeRetentionPeriod, e.client.config.MaxChangeRetentionPeriod
	for {
		removed, err := db.New().TrimChanges(ctx, e.client.pool, db.TrimChangesParams{Keep: keep, KeepMost: most, Page: trimPage})
		if err != nil {
			return fmt.Errorf("removing old entries of the log of changes: %w", err)
		}
		if removed < trimPage {
			return nil
		}
	}
}

func (e *engine) adoptChanges(ctx context.Context) error {
	adopted, err := db.New().AdoptChanges(ctx, e.client.pool)
	if err != nil {
		return fmt.Errorf("looking whether the log of changes was restored: %w", schemaError(err))
	}
	if adopted {
		e.client.config.Logger.Warn("the log of changes was restored from another server, and is taken over: its readers' positions are of no use any more, " +
			"and are refused with a ChangePositionError")
	}
	return nil
}

// makeChangePartitions makes missing partitions of the log. Without one, entries go to the default partition, so no outcome
// fails.
func (e *engine) makeChangePartitions(ctx context.Context) error {
	for day := range int32(partitionsAhead + 1) {
		if _, err := db.New().MakeChangePartition(ctx, e.client.pool, day); err != nil {
			return e.partitionFailed("making", err)
		}
	}
	return nil
}

func (e *engine) dropChangePartitions(ctx context.Context) error {
	keep, most := e.client.config.ChangeRetentionPeriod, e.client.config.MaxChangeRetentionPeriod
	for {
		dropped, err := db.New().DropChangePartition(ctx, e.client.pool, db.DropChangePartitionParams{Keep: keep, KeepMost: most})
		if err != nil {
			return e.partitionFailed("dropping", err)
		}
		if dropped == "" {
			return nil
		}
		e.client.config.Logger.Info("a partition of the log of changes was dropped", "partition", dropped, "retention", keep)
	}
}

// partitionFailed logs errors that leave partitions as they are until the next run of maintenance, and returns the others.
func (e *engine) partitionFailed(doing string, err error) error {
	const insufficientPrivilege, lockNotAvailable, deadlock = "42501", "55P03", "40P01"
	pg := new(pgconn.PgError)
	if !errors.As(err, &pg) {
		return fmt.Errorf("%s partitions of the log of changes: %w", doing, err)
	}
	switch pg.Code {
	case insufficientPrivilege:
		e.client.config.Logger.Warn("the pool's role may not make or drop partitions of the log of changes. Without them, entries go to delta_change_default, "+
			"and are removed row by row, which costs more: let it own delta_change, with its partitions, and create tables in the schema", "error", err)
	case lockNotAvailable, deadlock:
		e.client.config.Logger.Warn("partitions of the log of changes are in use by a transaction that does not end; it is tried again", "doing", doing,
			"retry_in", e.client.config.MaintenanceJobInterval, "error", err)
	default:
		return fmt.Errorf("%s partitions of the log of changes: %w", doing, err)
	}
	return nil
}

// ChangeLogStatus is the status of the log of changes.
type ChangeLogStatus struct {
	// Held is how many entries are still held back from readers, counted to 100,000, because a transaction is open that
	// began to write before they were written. Lag is the age of the first of them.
	Held int64
	Lag  time.Duration
	// OldestAge is the age of the oldest entry; 0 if there is none.
	OldestAge time.Duration
	// HeldBy is the oldest transaction of the server that may write; nil if there is none.
	HeldBy *OpenTransaction
	// Consumers are those of [Client.ConsumeChanges], by name and member.
	Consumers []ChangeConsumerStatus
}

// OpenTransaction is a transaction for which others wait: readers of the log of changes, or a source. Fields that the role
// may not see are empty.
type OpenTransaction struct {
	// PID is its process, 0 for a prepared transaction, whose name is Prepared.
	PID      int
	Prepared string
	// Database, User, Application and State are those of the process.
	Database, User, Application, State string
	// Age is how long it has been open; 0 if that is unknown.
	Age time.Duration
}

// String describes it for people.
func (o *OpenTransaction) String() string {
	if o.PID == 0 {
		return fmt.Sprintf("the prepared transaction %q in database %s, open for %s", o.Prepared, o.Database, o.Age.Round(time.Second))
	}
	if o.User == "" {
		return fmt.Sprintf("a transaction of process %d, of which this role sees no more", o.PID)
	}
	return fmt.Sprintf("a transaction of process %d (%s, user %s, application %q, database %s), open for %s",
		o.PID, o.State, o.User, o.Application, o.Database, o.Age.Round(time.Second))
}

// ChangeConsumerStatus is the progress of a consumer of the log of changes.
type ChangeConsumerStatus struct {
	// Name, Members and Member are those of its [ChangeConsumer].
	Name            string
	Members, Member int
	// Position is the one that was saved last, at SavedAt.
	Position ChangePosition
	SavedAt  time.Time
	// IsRunning reports whether a process has claimed it.
	IsRunning bool
	// IsLost reports whether it cannot continue without a gap: entries after its position were removed, or the database was
	// restored.
	IsLost bool
	// Behind is how many entries are after its position, including those of other kinds or members, counted to 100,000. Lag
	// is the age of the first of them.
	Behind int64
	Lag    time.Duration
}

// ChangeLog returns the status of the log of changes: which transaction holds readers back, and the progress of consumers.
func (c *Client) ChangeLog(ctx context.Context) (*ChangeLogStatus, error) {
	status, err := measureChanges(ctx, c.pool, maxCountedChanges)
	if err != nil {
		return nil, fmt.Errorf("delta: change log: %w", schemaError(err))
	}
	oldest, err := db.New().FindOldestTransaction(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: change log: %w", err)
	}
	if oldest != nil {
		t := OpenTransaction(*oldest)
		status.HeldBy = &t
	}
	return status, nil
}

// measureChanges returns the status of the log without HeldBy. Entries are counted up to most.
func measureChanges(ctx context.Context, conn db.DBTX, most int32) (*ChangeLogStatus, error) {
	held, err := db.New().HeldChanges(ctx, conn, most)
	if err != nil {
		return nil, err
	}
	status := &ChangeLogStatus{Held: held.Held, Lag: max(held.Lag, 0), OldestAge: max(held.OldestAge, 0)}
	rows, err := db.New().ListChangeConsumers(ctx, conn, most)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		place := logPosition{r.Epoch, r.OrderXid, r.ID}
		status.Consumers = append(status.Consumers, ChangeConsumerStatus{
			Name: r.Name, Members: int(r.Members), Member: int(r.Member), Position: place.encode(), SavedAt: r.SavedAt.UTC(), IsRunning: r.Running,
			IsLost: !place.isStart() && (r.Removed || r.Epoch != r.ChangeEpoch), Behind: r.Behind, Lag: max(r.Lag, 0),
		})
	}
	return status, nil
}
