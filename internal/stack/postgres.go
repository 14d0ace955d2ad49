package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Credentials and name of the database, as in the guide.
const (
	postgresUser     = "delta"
	postgresPassword = "password"
	postgresDatabase = "delta"
)

const poll = 20 * time.Millisecond

// startPostgres starts the stack's own Postgres.
func (s *Stack) startPostgres(ctx context.Context) error {
	data := s.home.dataDir()
	if err := s.home.recoverPostgres(s.reportProgress); err != nil {
		return err
	}
	as, err := postgresAccount(data)
	if err != nil {
		return err
	}
	major, err := dataMajor(data)
	if err != nil {
		return err
	}
	bin, err := s.findPostgres(ctx, major)
	if err != nil {
		return err
	}
	who := ""
	if as != nil {
		who = ", run as user " + as.name
	}
	s.PostgresBin = bin.dir
	s.reportProgress("Postgres %s from %s%s", bin.version, bin.dir, who)
	if err := s.prepareData(ctx, bin, as, major == 0); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := s.servePostgres(ctx, bin, as)
		if taken := (errPortTaken{}); errors.As(err, &taken) && attempt < 5 {
			s.reportProgress("Postgres: %v", err)
			continue
		}
		return err
	}
}

// prepareData creates the directories and, if there is no data yet, a cluster.
func (s *Stack) prepareData(ctx context.Context, bin binaries, as *account, fresh bool) error {
	data := s.home.dataDir()
	parent := filepath.Dir(data)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := as.takeOwnership(parent); err != nil {
		return fmt.Errorf("giving %s to user %s: %w", parent, as.name, err)
	}
	if !fresh {
		if as == nil && !isOwnedByUs(data) {
			return fmt.Errorf("%s belongs to another user, and Postgres insists on its own: run as that user, or use another directory", data)
		}
		return nil
	}
	// The cluster gets its name only when it is complete, so that a kill cannot leave half a cluster under that name.
	old, _ := filepath.Glob(filepath.Join(parent, "init-*"))
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp(parent, "init-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	password := filepath.Join(work, "password")
	secret, err := scramSecret(postgresPassword)
	if err != nil {
		return err
	}
	if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(as.takeOwnership(work), as.takeOwnership(password)); err != nil {
		return err
	}
	made := filepath.Join(work, "data")
	args := []string{
		"-D", made, "--username", postgresUser, "--pwfile", password, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--no-locale", "--no-instructions",
	}
	if s.opts.Ephemeral {
		args = append(args, "--no-sync")
	}
	done := s.reportWaiting("initdb to make a Postgres cluster")
	c, err := startChild(spec{
		name: "initdb", path: bin.toolPath("initdb"), args: args, dir: work, env: postgresEnv(),
		logPath: s.home.filePath("initdb.log"), as: as, orphan: syscall.SIGKILL, ending: killOnly,
	})
	if err == nil {
		err = c.wait(ctx)
	}
	done()
	if err != nil {
		return fmt.Errorf("making a Postgres cluster: %w", explainAccess(err, bin, as, work))
	}
	if err := os.Remove(data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // dataMajor has checked that the directory is empty or missing
	}
	return os.Rename(made, data)
}

// explainAccess finds the directory that an unprivileged user cannot enter.
func explainAccess(err error, bin binaries, as *account, dir string) error {
	if as == nil || !errors.Is(err, syscall.EACCES) && !strings.Contains(err.Error(), "ermission denied") {
		return err
	}
	for _, start := range []string{dir, bin.dir} {
		closed := ""
		for d := start; ; d = filepath.Dir(d) {
			if !as.canEnter(d) {
				closed = d
			}
			if d == filepath.Dir(d) {
				break
			}
		}
		if closed != "" {
			return fmt.Errorf("Postgres runs as user %s, because you are root, and that user cannot enter %s: "+
				"use a directory such as /var/lib/delta, or allow it (chmod o+x %s): %w", as.name, closed, closed, err)
		}
	}
	return err
}

func postgresEnv() []string {
	// The locale determines the language of the log, and on macOS Postgres does not start without one.
	return append(cleanEnv("PG", "LC_", "LANG", "LANGUAGE"), "LC_ALL=C")
}

// servePostgres starts the server on a port and waits until it serves.
func (s *Stack) servePostgres(ctx context.Context, bin binaries, as *account) error {
	port, err := s.ports.choosePort("postgres", s.opts.PostgresPort)
	if err != nil {
		return err
	}
	data := s.home.dataDir()
	settings := []string{
		"listen_addresses=127.0.0.1",
		// Without a socket there is no directory to own, and no limit on the length of its path.
		"unix_socket_directories=",
		"wal_level=logical",
		"max_connections=200",
		"logging_collector=off",
	}
	if s.opts.Ephemeral {
		settings = append(settings,
			"fsync=off", "synchronous_commit=off", "full_page_writes=off",
			// Several test processes run at the same time, each with pools and slots.
			"max_connections=500", "max_replication_slots=100", "max_wal_senders=100")
	}
	args := []string{"-D", data, "-p", strconv.Itoa(port)}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	defer s.reportWaiting(fmt.Sprintf("Postgres to serve on port %d", port))()
	c, err := startChild(spec{
		name: "Postgres", path: bin.toolPath("postgres"), args: args, dir: data, env: postgresEnv(),
		logPath: s.home.filePath("postgres.log"), pidPath: s.home.filePath("postgres.pid"),
		// SIGQUIT is an immediate shutdown, in which the postmaster ends all its processes.
		as: as, orphan: syscall.SIGQUIT, ending: postgresEnding,
	})
	if err != nil {
		return explainAccess(err, bin, as, data)
	}
	if err := awaitPostgres(ctx, c, port, data); err != nil {
		return errors.Join(explainAccess(err, bin, as, data), c.stop(ctx))
	}
	if err := s.adoptChild(c); err != nil {
		return errors.Join(err, c.stop(ctx))
	}
	s.reportPort("Postgres", s.opts.PostgresPort, port)
	s.DatabaseURL = postgresURL(port, postgresDatabase)
	return nil
}

// awaitPostgres returns when the server c serves on port and has the database.
func awaitPostgres(ctx context.Context, c *child, port int, data string) error {
	began := time.Now()
	attempts, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // if c dies, end the attempt, which may talk to another server on the port
		select {
		case <-c.done:
			stop()
		case <-attempts.Done():
		}
	}()
	for {
		err := preparePostgres(attempts, port, data)
		if err == nil {
			return nil
		}
		if taken := (errPortTaken{}); errors.As(err, &taken) {
			return err
		}
		// Another server may answer on the port until ours has died because the port was taken. It is ours if our log says that it accepts connections.
		// The time is for a server that logs elsewhere, by a setting of the user.
		ours := strings.Contains(c.readOutput(), "ready to accept connections")
		if refused := (*credentialsError)(nil); errors.As(err, &refused) && c.isAlive() && (ours || time.Since(began) > 30*time.Second) {
			return err
		}
		select {
		case <-c.done:
			// The program that had the port may have released it already.
			if strings.Contains(c.readOutput(), "Address already in use") || !isPortFree(port) {
				return errPortTaken{port}
			}
			return fmt.Errorf("Postgres did not start: %w", c.describeEnd())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// credentialsError is the error of a server that refuses the stack's user or password.
type credentialsError struct{ error }

// preparePostgres connects once, checks that the server runs on our data, and creates the database if it is missing.
func preparePostgres(ctx context.Context, port int, data string) error {
	connect := func(database string) (*pgx.Conn, error) {
		// A connection attempt that hangs is as useless as one that fails, so it has a timeout. Statements after it have none, because creating a database
		// can take long on a busy machine.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return pgx.Connect(ctx, postgresURL(port, database))
	}
	conn, err := connect(postgresDatabase)
	missing := false
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "3D000": // invalid_catalog_name
			missing = true
			conn, err = connect("postgres")
		case "28P01", "28000": // invalid_password, invalid_authorization_specification
			return &credentialsError{fmt.Errorf("Postgres on port %d refuses user %q with the password that this stack "+
				"gave it: change it back to %q, or move the data away to start empty: %w", port, postgresUser, postgresPassword, err)}
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var serves string
	if err := conn.QueryRow(ctx, `select current_setting('data_directory')`).Scan(&serves); err != nil {
		return err
	}
	if !sameFile(serves, data) {
		return errPortTaken{port}
	}
	if missing {
		if _, err := conn.Exec(ctx, "create database "+postgresDatabase); err != nil {
			return fmt.Errorf("creating the database %s: %w", postgresDatabase, err)
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}
