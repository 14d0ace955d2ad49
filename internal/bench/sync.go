package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
)

// syncTurns is the number of turns of a round: a few short ones, because each uses the whole machine for seconds.
const syncTurns = 2

// syncFigures compares the rate at which resources are synced with the rate at which bare workflows run their activity.
func syncFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	l, err := startLifecycle(ctx, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	count := b.scaleCount(400)
	ids := func(turn int) []string {
		set := make([]string, count)
		if turn == warmUp {
			set = set[:max(count/5, 1)]
		}
		for i := range set {
			set[i] = fmt.Sprintf("sync-%d-%d", turn, i)
		}
		return set
	}

	resources := func(ctx context.Context, turn int) (int, time.Duration, error) {
		var objects []delta.Object
		var workflows []string
		for _, id := range ids(turn) {
			objects = append(objects, syncedItem{newItem(syncedKind, id, 1)})
			workflows = append(workflows, deltaID(id))
		}
		began := time.Now()
		if _, err := l.client.InformMany(ctx, objects, nil); err != nil {
			return 0, 0, err
		}
		if err := awaitCount(ctx, l.synced, len(objects)); err != nil {
			return 0, 0, err
		}
		if err := l.awaitSynced(ctx); err != nil {
			return 0, 0, err
		}
		took := time.Since(began)
		if err := l.terminateWorkflows(ctx, workflows); err != nil {
			return 0, 0, err
		}
		_, err := b.pool.Exec(ctx, "TRUNCATE delta_resource")
		return len(objects), took, err
	}
	eagerly := false
	bare := func(ctx context.Context, turn int) (int, time.Duration, error) {
		var workflows []string
		var group errgroup.Group
		group.SetLimit(starters)
		began := time.Now()
		for _, id := range ids(turn) {
			workflows = append(workflows, bareID(id))
			group.Go(func() error { return l.startBare(ctx, id, eagerly) })
		}
		if err := group.Wait(); err != nil {
			return 0, 0, err
		}
		if err := awaitCount(ctx, l.ran, len(workflows)); err != nil {
			return 0, 0, err
		}
		took := time.Since(began)
		return len(workflows), took, l.terminateWorkflows(ctx, workflows)
	}
	f := figure{
		Name: singleName, Unit: "/s", AtLeast: 0.85,
		What: fmt.Sprintf("Client.InformMany of %d objects until the last row is synced (Work does nothing), against starting as many "+
			"workflows of one activity and one timer, as the SDK starts them by default, until the last activity ran; %d started at once, "+
			"%d activities at once", count, starters, parallelism),
	}
	if f, err = compareRates(ctx, b.rounds, syncTurns, f, resources, bare); err != nil {
		return nil, err
	}
	eagerly = true
	eager := figure{
		Name: "resources synced, beside an eager start", Unit: "/s", AtLeast: 1.4,
		What: "the same, against workflows that begin on the worker that starts them (EnableEagerStart), as those of new resources do",
	}
	eager, err = compareRates(ctx, b.rounds, syncTurns, eager, resources, bare)
	return []figure{f, eager}, err
}

// awaitSynced returns when all rows are synced, which is later than the end of Work.
func (l *lifecycle) awaitSynced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		var open bool
		err := l.b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM delta_resource WHERE state <> 'synced')").Scan(&open)
		if err != nil || !open {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
