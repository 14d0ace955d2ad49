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
	// CheckSkipped is for a check that needs what another one found to be missing.
	CheckSkipped CheckState = "skip"
)

// Check is one thing that was looked at, what was found, and what to do about it.
type Check struct {
	// Name is the subject of the check, such as "workers". Several checks may have the same name.
	Name string
	// Kind is the kind that it is about, and of a consumer of the log of changes its name; empty where it is about the installation.
	Kind string
	// Namespace is the namespace that it is about; empty where it is about none.
	Namespace string
	// State is the result.
	State CheckState
	// Detail says in words what was found, Remedy what to do about it, with commands of the command line; empty where there is nothing to do. Both are
	// one line without control characters.
	Detail, Remedy string
}

// Diagnosis is the result of [Client.Doctor].
type Diagnosis struct {
	// At is when it began.
	At time.Time
	// Checks are in the order of what needs what: the database, the schema, Temporal, kinds, and what is late.
	Checks []Check
	// Kinds is the result of [Client.Kinds]; nil where it could not be read.
	Kinds []KindStatus
	// Temporal is the result of [Client.TemporalStatus] for them; nil where it could not be read.
	Temporal *TemporalStatus
}

// State is the worst that was found: CheckFailure, CheckWarning or CheckOK.
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

// Doctor checks what the installation needs: the database, the schema, Temporal and its settings, schedules, workers, and what is late or waits for
// somebody. It changes nothing, and the client need not be started. What cannot be looked at is a check that says so, which is why it returns no
// error: once ctx has ended, checks may say just that.
//
// What it reads does not grow with the table, as with [Client.Kinds]. It asks Temporal about each kind. A Temporal that does not answer takes 10 to 30 seconds.
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

// doctor makes the checks of a client.
type doctor struct {
	client *Client
	now    time.Time
	found  findings
}

// findings is a list that grows.
type findings []Check

func (f *findings) addCheck(name string, state CheckState, detail, remedy string) {
	f.addKindCheck(name, "", state, detail, remedy)
}

func (f *findings) addKindCheck(name, kind string, state CheckState, detail, remedy string) {
	*f = append(*f, Check{Name: name, Kind: kind, State: state, Detail: wording.Line(detail), Remedy: wording.Line(remedy)})
}

// readStatus reads what most checks are about.
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
