package delta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

// ChangeConsumer is a consumer of the log of changes whose position is kept in the database. Name is required, and Handle
// for [Client.ConsumeChanges].
type ChangeConsumer struct {
	// Name identifies the consumer: each has its own position. Letters, digits, '_', '-' and '.', at most 127 bytes.
	Name string

	// Members is the size of a group that shares the log, 1000 at most, and Member the index of this consumer in it, from
	// 0. Each member gets the entries of its share of the resources, and all entries of a resource go to the same member. A
	// group of another size begins at the position of the slowest member of the group before: stop that group first.
	//
	// Defaults to 1: no group.
	Members, Member int

	// Kinds are the kinds whose entries are handled.
	//
	// Defaults to all.
	Kinds []string

	// From is where a consumer without a position begins.
	//
	// Defaults to the oldest entry that is kept.
	From ChangePosition

	// BatchSize is how many entries are read at once, 10,000 at most.
	//
	// Defaults to 100.
	BatchSize int

	// Restart makes the consumer begin again at the oldest entry, with a warning in the log, if it cannot continue from its
	// position without a gap: entries were removed before it has handled them, or the database was restored. It does not
	// get the lost entries: its handler should read the current resources instead.
	//
	// Defaults to false: it ends with a *[ChangePositionError].
	Restart bool

	// Handle is called with the next entries, those of a resource in their order, one batch after the other. After an
	// error, or a panic, it gets the same entries again, after a backoff. It must set aside entries that it cannot handle,
	// or it makes no progress.
	//
	// Its context ends with that of [Client.ConsumeChanges], and when another process has taken over.
	Handle func(ctx context.Context, batch *ChangeBatch) error
}

const maxChangeMembers = 1000

// withDefaults checks a consumer, and returns it with its defaults.
func (o ChangeConsumer) withDefaults() (ChangeConsumer, error) {
	if err := checkName("Name", o.Name); err != nil {
		return o, err
	}
	setDefault(&o.Members, 1)
	setDefault(&o.BatchSize, changesBatch)
	switch {
	case o.Members < 1 || o.Members > maxChangeMembers:
		return o, inputError("Members", o.Members, "must be between 1 and %d", maxChangeMembers)
	case o.Member < 0 || o.Member >= o.Members:
		return o, inputError("Member", o.Member, "must be between 0 and %d, which is one less than Members", o.Members-1)
	case o.BatchSize < 1 || o.BatchSize > maxChangesBatch:
		return o, inputError("BatchSize", o.BatchSize, "must be between 1 and %d, or 0 for the default of %d", maxChangesBatch, changesBatch)
	}
	return o, checkKinds("Kinds", o.Kinds)
}

// ErrConsumerSuperseded is wrapped in the error of [ChangeBatch.SaveTx] if another process has taken over the consumer, or
// has handled the batch: roll back.
var ErrConsumerSuperseded = errors.New("another process has taken over the consumer")

// ChangeBatch is the argument of a consumer's Handle.
type ChangeBatch struct {
	// Changes are the entries.
	Changes []*Change

	run      *changeRun
	from, to logPosition
	saved    atomic.Bool
}

// SaveTx records in the caller's transaction that the batch was handled. Then its effects in the same database and the
// position are committed together, exactly once. Without SaveTx the position is saved after Handle has returned nil, and a
// batch may be repeated after a crash. It returns an error with [ErrConsumerSuperseded] if another process has taken over
// the consumer.
func (b *ChangeBatch) SaveTx(ctx context.Context, tx pgx.Tx) error {
	b.run.inTx.Store(true)
	if err := b.run.savePosition(ctx, tx, b.from, b.to); err != nil {
		return fmt.Errorf("delta: changes: saving the position of consumer %q: %w", b.run.Name, err)
	}
	b.saved.Store(true)
	return nil
}

const (
	// changeClaimFor is how long the claim of a silent process lasts. It is renewed three times as often.
	changeClaimFor = 15 * time.Second
	// changeClaimLook is how often a process asks for a consumer that another one has claimed.
	changeClaimLook = time.Second
	// positionEvery is how often the position is saved while all entries belong to other consumers.
	positionEvery = time.Second
)

// ConsumeChanges handles the log of changes until ctx ends, and then returns nil. Entries are handled at least once, and
// those of a resource in their order; with [ChangeBatch.SaveTx], exactly once. If the same consumer, or member of a group,
// runs in another process, it waits until that ends or dies: run as many as you like.
//
// It returns earlier with an *[InputError], a *[ChangePositionError] (see [ChangeConsumer].Restart), or a permanent error
// of Postgres. The client need not be started. The log keeps entries that a consumer has not handled, up to
// [Config].MaxChangeRetentionPeriod: remove a consumer that is no longer used with [Client.ForgetChangeConsumer].
func (c *Client) ConsumeChanges(ctx context.Context, consumer ChangeConsumer) error {
	consumer, err := consumer.withDefaults()
	if err == nil && consumer.Handle == nil {
		err = inputError("Handle", nil, "must be a function")
	}
	from := logPosition{}
	if err == nil {
		from, err = parseChangePosition("From", consumer.From)
	}
	for err == nil {
		r := newChangeRun(c, consumer)
		if err = r.run(ctx, from); errors.Is(err, errConsumerLost) && ctx.Err() == nil {
			c.config.Logger.Warn("another process may have taken over a consumer of the log of changes; it is waited for", "consumer", consumer.Name, "member", consumer.Member)
			err = nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("delta: changes: consumer %q: %w", consumer.Name, err)
}

// ForgetChangeConsumer removes the positions of a consumer and all its members, so that the log keeps nothing for it. It
// returns [ErrNotFound] if there is no such consumer, or if a process runs it.
func (c *Client) ForgetChangeConsumer(ctx context.Context, name string) error {
	if err := checkName("name", name); err != nil {
		return fmt.Errorf("delta: changes: %w", err)
	}
	removed, err := db.New().ForgetChangeConsumer(ctx, c.pool, name)
	if err == nil && removed == 0 {
		err = fmt.Errorf("%w, or it runs", ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("delta: changes: removing consumer %q: %w", name, schemaError(err))
	}
	return nil
}

// errConsumerLost ends a consumer whose claim another process may have.
var errConsumerLost = errors.New("the claim on the consumer was lost")

// changeRun is the time during which a process holds the claim of a consumer.
type changeRun struct {
	ChangeConsumer
	client *Client
	reader changeReader
	claim  string
	// members and member are Members and Member in the database's type.
	members, member int32
	// saved is the position in the database.
	saved logPosition
	// inTx is set while a transaction of the user's may lock the row of the position.
	inTx atomic.Bool
}

func newChangeRun(c *Client, consumer ChangeConsumer) *changeRun {
	return &changeRun{
		ChangeConsumer: consumer, client: c, claim: uuid.NewString(),
		members: int32(consumer.Members), member: int32(consumer.Member), //nolint:gosec // they have a bound
		reader: changeReader{client: c, kinds: consumer.Kinds, member: consumer.Member, members: consumer.Members, batch: consumer.BatchSize},
	}
}

// run waits until it has claimed the consumer, and handles the log until the claim is lost, or ctx ends.
func (r *changeRun) run(ctx context.Context, from logPosition) error {
	if err := r.claimConsumer(ctx, from); err != nil {
		return err
	}
	owned, lose := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { r.renewClaim(owned, lose) })
	defer r.releaseClaim()
	defer renewing.Wait()
	defer lose(nil)
	err := r.consumeLog(owned)
	if cause := context.Cause(owned); cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}

// claimConsumer waits until this process has the claim.
func (r *changeRun) claimConsumer(ctx context.Context, from logPosition) error {
	for {
		owned := false
		err := r.client.retryLogQuery(ctx, "taking over a consumer of the log of changes failed; it is tried again", func() error {
			row, err := db.New().ClaimChangeConsumer(ctx, r.client.pool, db.ClaimChangeConsumerParams{
				Name: r.Name, Members: r.members, Member: r.member, Epoch: from.epoch, OrderXid: from.xid, ID: from.id,
				Claim: r.claim, ClaimFor: changeClaimFor,
			})
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			owned, r.saved = err == nil, logPosition{row.Epoch, row.OrderXid, row.ID}
			return schemaError(err)
		})
		if err != nil {
			return err
		}
		if owned {
			return r.forgetOtherGroups(ctx)
		}
		if err := backoff.Pause(ctx, changeClaimLook); err != nil {
			return err
		}
	}
}

func (r *changeRun) forgetOtherGroups(ctx context.Context) error {
	return r.client.retryLogQuery(ctx, "removing positions of an earlier group failed; it is tried again", func() error {
		return db.New().ForgetOtherGroups(ctx, r.client.pool, db.ForgetOtherGroupsParams{Name: r.Name, Members: r.members})
	})
}

// renewClaim renews the claim until ctx ends, and calls lose if the claim may be lost.
func (r *changeRun) renewClaim(ctx context.Context, lose context.CancelCauseFunc) {
	renewed := time.Now()
	for backoff.Pause(ctx, changeClaimFor/3) == nil {
		began := time.Now()
		within, cancel := context.WithTimeout(ctx, changeClaimFor/3)
		rows, err := db.New().RenewChangeConsumer(within, r.client.pool, db.RenewChangeConsumerParams{
			ClaimFor: changeClaimFor, Name: r.Name, Members: r.members, Member: r.member, Claim: r.claim,
		})
		cancel()
		switch {
		case err == nil && rows == 1:
			renewed = began
		case err == nil:
			lose(errConsumerLost)
			return
		case r.inTx.Load():
			renewed = began // a transaction of the user's locks the row, so no other process takes it over
		case time.Since(renewed) > changeClaimFor*2/3:
			lose(errConsumerLost)
			return
		}
	}
}

// releaseClaim lets another process claim the consumer at once.
func (r *changeRun) releaseClaim() {
	ctx, cancel := context.WithTimeout(context.Background(), changeClaimFor/3)
	defer cancel()
	_ = db.New().ReleaseChangeConsumer(ctx, r.client.pool, db.ReleaseChangeConsumerParams{ // otherwise it has it a little later
		Name: r.Name, Members: r.members, Member: r.member, Claim: r.claim,
	})
}
