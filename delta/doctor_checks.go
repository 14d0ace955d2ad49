package delta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/internal/pooler"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/migrations"
)

// errorDetail returns the text of an error without the prefixes that name its origin.
func errorDetail(err error) string {
	if failed := (*temporal.ApplicationError)(nil); errors.As(err, &failed) {
		return failed.Message()
	}
	return strings.TrimPrefix(err.Error(), "delta: ")
}

// describeUnreachable describes a server that does not answer, with each line of the cause once: pgx tries again without
// TLS, and reports both.
func describeUnreachable(server string, err error) string {
	var causes []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(causes, line) {
			causes = append(causes, line)
		}
	}
	return server + " cannot be reached: " + strings.Join(causes, " ")
}

// checkDatabase reports whether Postgres answers.
func (d *doctor) checkDatabase(ctx context.Context) bool {
	const check = "database"
	pool, f := d.client.pool, &d.found
	config := pool.Config().ConnConfig
	host := net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	// Ping first, so that a wrong address is not reported as another failure.
	if err := pool.Ping(ctx); err != nil {
		f.addCheck(check, CheckFailure, describeUnreachable("Postgres at "+host, err), remedy.ReachPostgres)
		f.addCheck("schema", CheckSkipped, "needs the database", "")
		return false
	}
	var version, database string
	err := pool.QueryRow(ctx, `select current_setting('server_version'), current_database()`).Scan(&version, &database)
	if err != nil {
		f.addCheck(check, CheckFailure, err.Error(), "see what the server's log says")
	} else {
		f.addCheck(check, CheckOK, fmt.Sprintf("PostgreSQL %s at %s, database %s", strings.Fields(version)[0], host, database), "")
		d.checkPooler(ctx)
	}
	return true
}

// checkPooler checks whether the address is that of a pooler; it reports nothing for a direct connection. A pooler in
// transaction mode may be missed.
func (d *doctor) checkPooler(ctx context.Context) {
	const check = "pooler"
	kind, err := pooler.Find(ctx, d.client.pool)
	switch {
	case err != nil:
		d.found.addCheck(check, CheckWarning, "whether the address is that of a pooler could not be found out: "+err.Error(), "ask again")
	case kind == pooler.Transaction:
		d.found.addCheck(check, CheckWarning, "the address is that of a pooler in transaction mode, such as PgBouncer. Clients hear no notifications there, and find what others inform "+
			"by polling; migrations and the stream of changes refuse it", remedy.ConnectDirectly)
	case kind == pooler.Session:
		d.found.addCheck(check, CheckOK, "the address is that of a pooler, in session mode", "")
	}
}

// checkSchema reports whether the tables can be read.
func (d *doctor) checkSchema(ctx context.Context) bool {
	const check = "schema"
	f := &d.found
	list, err := migrations.List(ctx, d.client.pool)
	if err != nil {
		f.addCheck(check, CheckFailure, err.Error(), "see that the search_path names a schema that exists, and that the user may read it")
		return false
	}
	var pending []string
	for _, one := range list {
		if one.AppliedAt == nil {
			pending = append(pending, one.Name)
		}
	}
	newest := list[len(list)-1].Version
	version, err := migrations.Version(ctx, d.client.pool)
	switch {
	case err != nil:
		f.addCheck(check, CheckFailure, err.Error(), "see what the server's log says")
	case len(pending) == len(list):
		f.addCheck(check, CheckFailure, "Delta's schema is missing", remedy.Migrate)
	case len(pending) > 0:
		f.addCheck(check, CheckFailure, "pending: "+strings.Join(pending, ", "), remedy.Migrate)
	case version > newest:
		f.addCheck(check, CheckWarning, fmt.Sprintf("version %d is newer than this program, which knows %d", version, newest), "use the delta of your clients' version")
		return true
	default:
		f.addCheck(check, CheckOK, fmt.Sprintf("version %d, up to date", version), "")
		return true
	}
	return false
}
