package delta

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/internal/wording"
)

// CheckState is the result of a check.
type CheckState string

// The states of a check, in the words of the command.
const (
	CheckOK      CheckState = "ok"
	CheckWarning CheckState = "warn"
	CheckFailure CheckState = "fail"
	// CheckSkipped is for a check that needs something which another check found missing.
	CheckSkipped CheckState = "skip"
)

// Check is one check of [Client.Doctor]: its subject, the result, and what to do about it.
type Check struct {
	// Name is the subject of the check, such as "workers". Several checks may have the same name.
	Name string
	// Kind is the kind that it is about, or the name of a consumer of the log of changes; empty if it is about the
	// installation.
	Kind string
	// Namespace is the namespace that it is about; empty if it is about none.
	Namespace string
	// State is the result.
	State CheckState
	// Detail describes the result. Remedy describes what to do about it, with commands of the command line; empty if there
	// is nothing to do. Both are one line without control characters.
	Detail, Remedy string
}

// Diagnosis is the result of [Client.Doctor].
type Diagnosis struct {
	// At is when it began.
	At time.Time
	// Checks are in the order of their dependencies: the database, the schema, Temporal, kinds, and late resources.
	Checks []Check
	// Kinds is the result of [Client.Kinds]; nil if it could not be read.
	Kinds []KindStatus
	// Temporal is the result of [Client.TemporalStatus] for them; nil if it could not be read.
	Temporal *TemporalStatus
}

// State returns the worst result: CheckFailure, CheckWarning or CheckOK.
func (d *Diagnosis) State() CheckState {
	worst := CheckOK
	for _, check := range d.Checks {
		switch check.State {
		case CheckFailure:
			return CheckFailure
		case CheckWarning:
			worst = CheckWarning
		case CheckOK, CheckSkipped:
		}
	}
	return worst
}

// Doctor checks the needs of the installation: the database, the schema, Temporal and its settings, schedules, workers, and
// resources that are late or wait for somebody. It changes nothing, and the client need not be started. It returns no
// error, because anything that cannot be read is a check that says so; once ctx has ended, all may.
//
// The cost does not grow with the table, as for [Client.Kinds]. It asks Temporal about each kind. If Temporal does not
// answer, it takes 10 to 30 seconds.
func (c *Client) Doctor(ctx context.Context) *Diagnosis {
	d := &doctor{client: c, now: time.Now()}
	found := &d.found
	hasDatabase := d.checkDatabase(ctx)
	hasSchema := hasDatabase && d.checkSchema(ctx)
	var kinds []KindStatus
	var snoozes []Snooze
	if hasSchema {
		kinds, snoozes = d.readStatus(ctx)
	}
	status := d.checkTemporal(ctx, hasDatabase, hasSchema, kinds)
	if !hasSchema {
		found.addCheck("late", CheckSkipped, "needs the schema", "")
	}
	found.checkSnoozes(snoozes, d.now)
	found.checkLate(kinds, d.now)
	found.checkUnfinalized(kinds, d.now)
	found.checkQueued(kinds, d.now)
	found.checkAwaiting(kinds, d.now)
	found.checkTouches(kinds, d.now)
	found.checkWithheld(kinds)
	found.checkSources(kinds, d.now)
	found.checkShards(kinds)
	found.checkStale(kinds)
	found.checkUndecodable(kinds)
	return &Diagnosis{At: d.now.UTC(), Checks: d.found, Kinds: kinds, Temporal: status}
}

// doctor runs the checks of a client.
type doctor struct {
	client *Client
	now    time.Time
	found  findings
}

// findings collects checks.
type findings []Check

func (f *findings) addCheck(name string, state CheckState, detail, remedy string) {
	f.addKindCheck(name, "", state, detail, remedy)
}

func (f *findings) addKindCheck(name, kind string, state CheckState, detail, remedy string) {
	*f = append(*f, Check{Name: name, Kind: kind, State: state, Detail: wording.Line(detail), Remedy: wording.Line(remedy)})
}

// readStatus reads the data of most checks.
func (d *doctor) readStatus(ctx context.Context) (kinds []KindStatus, snoozes []Snooze) {
	kinds, err := d.client.Kinds(ctx)
	if err != nil {
		d.found.addCheck("kinds", CheckFailure, errorDetail(err), "see what the server's log says")
	}
	d.checkRefused(ctx, kinds)
	if snoozes, err = d.client.Snoozes(ctx); err != nil {
		d.found.addCheck("snoozes", CheckFailure, errorDetail(err), "see what the server's log says")
	}
	if log, err := d.client.ChangeLog(ctx); err != nil {
		d.found.addCheck("log of changes", CheckFailure, errorDetail(err), "see what the server's log says")
	} else {
		d.found.checkChangeLog(log)
	}
	return kinds, snoozes
}
