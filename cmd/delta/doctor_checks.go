package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/pooler"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/migrations"
)

// diagnose makes all checks. What needs something that is missing is skipped.
func (c *cli) diagnose(ctx context.Context, config *pgxpool.Config) findings {
	var found findings
	var kinds []delta.KindStatus
	var snoozes []delta.Snooze
	schema := false
	err := withPool(ctx, config, func(ctx context.Context, pool *pgxpool.Pool) error {
		found.database(ctx, pool, host(config))
		schema = found.schema(ctx, pool)
		s, err := c.open(ctx, pool)
		if err != nil {
			found.add("settings", healthFail, message(err), "give the flag another value")
			return nil
		}
		defer s.close(ctx)
		if schema {
			if kinds, err = s.Kinds(ctx); err != nil {
				found.add("kinds", healthFail, message(err), "")
			}
			found.refused(ctx, s, kinds)
			if snoozes, err = s.Snoozes(ctx); err != nil {
				found.add("snoozes", healthFail, message(err), "")
			}
			if log, err := s.ChangeLog(ctx); err != nil {
				found.add("log of changes", healthFail, message(err), "")
			} else {
				found.changes(log)
			}
		}
		found.temporal(ctx, s, schema, kinds)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		found.add("database", healthFail, err.Error(),
			"see that Postgres runs there, and that --database-url or "+databaseVariable+" names it; delta dev starts one for development")
		found.add("schema", healthSkip, "needs the database", "")
		if lazy, address, namespace, err := c.lazyTemporal(slog.New(slog.DiscardHandler)); err != nil {
			found.temporalAway(err)
		} else {
			defer lazy.Close()
			found.reached(ctx, &session{temporal: lazy, address: address, namespace: namespace})
		}
		found.skip("the database")
	}
	if !schema {
		found.add("late", healthSkip, "needs the schema", "")
	}
	found.snoozed(snoozes, time.Now())
	found.late(kinds, time.Now())
	found.unfinalized(kinds, time.Now())
	found.queued(kinds, time.Now())
	found.awaiting(kinds, time.Now())
	found.withheld(kinds)
	found.sources(kinds, time.Now())
	found.shards(kinds)
	found.stale(kinds)
	found.undecodable(kinds)
	return found
}

func (f *findings) database(ctx context.Context, pool *pgxpool.Pool, host string) {
	var version, database string
	err := pool.QueryRow(ctx, `select current_setting('server_version'), current_database()`).Scan(&version, &database)
	if err != nil {
		f.add("database", healthFail, err.Error(), "see what the server's log says")
		return
	}
	f.add("database", healthOK, fmt.Sprintf("PostgreSQL %s at %s, database %s", strings.Fields(version)[0], host, database), "")
	f.pooler(ctx, pool)
}

// pooler looks at whether the address is that of a pooler, of which a direct connection says nothing. That one in transaction mode was missed is possible.
func (f *findings) pooler(ctx context.Context, pool *pgxpool.Pool) {
	const check = "pooler"
	kind, err := pooler.Find(ctx, pool)
	switch {
	case err != nil:
		f.add(check, healthWarn, "whether the address is that of a pooler could not be found out: "+err.Error(), "ask again")
	case kind == pooler.Transaction:
		f.add(check, healthWarn, "the address is that of a pooler in transaction mode, such as PgBouncer. Clients hear no notifications there, and find what others inform "+
			"by polling; migrations and the stream of changes refuse it", remedy.ConnectDirectly)
	case kind == pooler.Session:
		f.add(check, healthOK, "the address is that of a pooler, in session mode", "")
	}
}

// schema tells whether the tables can be read.
func (f *findings) schema(ctx context.Context, pool *pgxpool.Pool) bool {
	const check = "schema"
	list, err := migrations.List(ctx, pool)
	if err != nil {
		f.add(check, healthFail, err.Error(), "see that the search_path names a schema that exists, and that the user may read it")
		return false
	}
	var pending []string
	for _, one := range list {
		if one.AppliedAt == nil {
			pending = append(pending, one.Name)
		}
	}
	newest := list[len(list)-1].Version
	version, err := migrations.Version(ctx, pool)
	switch {
	case err != nil:
		f.add(check, healthFail, err.Error(), "")
	case len(pending) == len(list):
		f.add(check, healthFail, "Delta's schema is missing", remedy.Migrate)
	case len(pending) > 0:
		f.add(check, healthFail, "pending: "+strings.Join(pending, ", "), remedy.Migrate)
	case version > newest:
		f.add(check, healthWarn, fmt.Sprintf("version %d is newer than this command, which knows %d", version, newest), "use the delta of your clients' version")
		return true
	default:
		f.add(check, healthOK, fmt.Sprintf("version %d, up to date", version), "")
		return true
	}
	return false
}

const checkServerSettings = "server settings"

func (f *findings) temporalAway(err error) {
	f.add("temporal", healthFail, message(err), remedy.ReachTemporal)
	f.add(checkServerSettings, healthSkip, "needs Temporal", "")
}

// reached reports whether Temporal answers.
func (f *findings) reached(ctx context.Context, s *session) bool {
	if s.temporalErr != nil {
		f.temporalAway(s.temporalErr)
		return false
	}
	server, err := askTemporal(ctx, s.temporal, s.address, s.namespace)
	if err != nil {
		f.temporalAway(err)
		return false
	}
	f.add("temporal", healthOK, fmt.Sprintf("server %s at %s, namespace %s", server.version, s.address, s.namespace), "")
	f.serverSettings(server)
	return true
}

// serverSettings looks at the dynamic configuration that docs/operations.md recommends.
func (f *findings) serverSettings(server temporalServer) {
	if server.capabilities == nil {
		f.add(checkServerSettings, healthSkip, "needs the right to describe the namespace", "")
		return
	}
	var off, remedies []string
	if !server.capabilities.GetWorkerPollCompleteOnShutdown() {
		off = append(off, "polls of a worker that stops are not ended, so after a restart the first sync of a kind may wait for ten seconds")
		remedies = append(remedies, "frontend.enableCancelWorkerPollsOnShutdown (server 1.32 or later)")
	}
	if !server.capabilities.GetEagerWorkflowStart() {
		off = append(off, "workflows do not start eagerly, so new resources take longer, and more of Temporal")
		remedies = append(remedies, "system.enableEagerWorkflowStart")
	}
	if len(off) == 0 {
		f.add(checkServerSettings, healthOK, "polls end when a worker stops, and workflows start eagerly", "")
		return
	}
	f.add(checkServerSettings, healthWarn, strings.Join(off, "; "),
		"set to true in the server's dynamic configuration: "+strings.Join(remedies, " and "))
}

// skip has the checks that need the database and Temporal left out.
func (f *findings) skip(why string) {
	for _, check := range []string{"prefix", "search attributes", "informers", "workers"} {
		f.add(check, healthSkip, "needs "+why, "")
	}
}

// temporal makes the checks that ask Temporal.
func (f *findings) temporal(ctx context.Context, s *session, schema bool, kinds []delta.KindStatus) {
	if !f.reached(ctx, s) {
		f.skip("Temporal")
		return
	}
	if !schema {
		f.skip("the schema")
		return
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Kind
	}
	status, err := s.TemporalStatus(ctx, names...)
	var input *delta.InputError
	switch {
	case errors.Is(err, delta.ErrOtherInstallation):
		f.add("prefix", healthFail, message(err), remedy.MatchInstallation)
		return
	case errors.As(err, &input):
		f.add("prefix", healthFail, message(err), "leave --prefix out")
		return
	case err != nil:
		f.add("prefix", healthFail, message(err), "")
		return
	case !status.PrefixHeld:
		f.add("prefix", healthWarn, fmt.Sprintf("%s is not marked as this installation's in Temporal", status.Prefix),
			"start a client: it marks the prefix, and dispatches everything anew if Temporal was wiped or moved")
	default:
		f.add("prefix", healthOK, status.Prefix+" is this installation's", "")
	}
	f.attributes(status)
	if len(kinds) == 0 {
		f.add("kinds", healthWarn, "there are none yet", "start a client with controllers")
	}
	now := time.Now()
	for _, k := range kinds {
		if k.Paused {
			f.addKind("kind", k.Kind, healthWarn, "paused: its resources are not worked on", remedy.ResumeKind(k.Kind))
		}
		there := status.Kinds[k.Kind]
		if there.Error != nil {
			f.addKind("kind", k.Kind, healthWarn, "Temporal could not be asked about it: "+message(there.Error), remedy.ReachTemporal)
			continue
		}
		f.informer(k, there, now)
		f.fullListing(k, there, now)
		f.workers(k, there)
	}
}

func (f *findings) attributes(status *delta.TemporalStatus) {
	const check = "search attributes"
	switch {
	case status.AttributesError != nil:
		f.add(check, healthWarn, "they cannot be read: "+status.AttributesError.Error(),
			"only the filters of Temporal's UI need them: DeltaKind, DeltaNamespace and DeltaState, of type Keyword")
	case len(status.MissingAttributes) > 0:
		command := "create them: temporal operator search-attribute create --namespace " + status.Namespace
		for _, name := range status.MissingAttributes {
			command += " --name " + name + " --type Keyword"
		}
		f.add(check, healthWarn, "missing: "+strings.Join(status.MissingAttributes, ", ")+"; Temporal's UI cannot filter by them", command)
	default:
		f.add(check, healthOK, "DeltaKind, DeltaNamespace and DeltaState are there", "")
	}
}

const checkInformer = "informer"

// informer looks at a kind's schedule, and at how far its informer lags.
func (f *findings) informer(k delta.KindStatus, t delta.KindInTemporal, now time.Time) {
	add := func(status health, detail, remedy string) { f.addKind(checkInformer, k.Kind, status, detail, remedy) }
	every := "every " + often(k.InformInterval)
	if k.InformSchedule != nil {
		every = "by calendar"
	}
	switch {
	case k.InformInterval == 0 && k.InformSchedule == nil:
		add(healthWarn, "no client that runs informers has started with this kind", "start a client that has its controller, without Config.DisableInformers")
	case k.ListsNothing:
		add(healthOK, "its controller has none", "")
	case k.InformInterval < 0:
		add(healthOK, "never runs by itself, as it is set", "")
	default:
		f.schedule(checkInformer, k, every, t.Schedule, now)
	}
}

// fullListing looks at the schedule of a kind's full listings, which is one of its own.
func (f *findings) fullListing(k delta.KindStatus, t delta.KindInTemporal, now time.Time) {
	if k.FullListingInterval > 0 && !k.ListsNothing {
		f.schedule("full listing", k, "every "+often(k.FullListingInterval), t.FullSchedule, now)
	}
}

// schedule looks at a schedule in Temporal that must be there.
func (f *findings) schedule(check string, k delta.KindStatus, every string, there *delta.InformSchedule, now time.Time) {
	add := func(status health, detail, todo string) { f.addKind(check, k.Kind, status, detail, todo) }
	switch {
	case there == nil:
		add(healthWarn, "its schedule is missing in Temporal", "start a client that has its controller: it makes the schedule within a minute")
	case k.InformerPaused:
		add(healthWarn, every+", paused", remedy.ResumeInformer(k.Kind))
	case there.Paused:
		add(healthWarn, every+", paused in Temporal by an operator", remedy.ResumeInformer(k.Kind))
	case there.LastRunFailed:
		add(healthWarn, fmt.Sprintf("%s, but the run of %s failed", every, when(there.LastRun, now)), remedy.SeePasses(k.Kind))
	case check == checkInformer && k.Lag > 0:
		add(healthWarn, fmt.Sprintf("%s, but no pass has succeeded for %s", every, short(k.Lag)), remedy.SeePasses(k.Kind))
	default:
		add(healthOK, fmt.Sprintf("%s, next %s", every, when(there.NextRun, now)), "")
	}
}

func (f *findings) workers(k delta.KindStatus, t delta.KindInTemporal) {
	add := func(status health, detail, remedy string) { f.addKind("workers", k.Kind, status, detail, remedy) }
	switch {
	case len(t.Workers) == 0 && k.Late > 0:
		add(healthFail, "nobody polls "+t.TaskQueue+", and resources are late", remedy.StartWorker)
	case len(t.Workers) == 0:
		add(healthWarn, "nobody polls "+t.TaskQueue, remedy.StartWorker)
	case len(t.InformWorkers) == 0:
		add(healthWarn, "nobody polls "+t.InformTaskQueue, remedy.StartWorker)
	default:
		add(healthOK, fmt.Sprintf("%d on %s", len(t.Workers), t.TaskQueue), "")
	}
}
