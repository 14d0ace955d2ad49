// Package testdb makes databases for tests, from templates or empty, and drops them with all that still uses them.
//
// A test has a database and not a schema, so that it shares no notifications, replication slots, publications or invalidated catalogs with others, and a copy of
// a template takes less time than Delta's migrations.
package testdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/stack"
)

const (
	// maintenance is a database that each server has, and that no test drops.
	maintenance = "postgres"
	// leave is how long connections that were closed may take to end.
	leave = 2 * time.Second
	pause = 20 * time.Millisecond
	// users are the connections that keep a database from being dropped; the rest of what uses it goes by itself.
	users = "pg_stat_activity WHERE datname = $1 AND backend_type IN ('client backend', 'walsender')"
)

// Server is a Postgres server. Its methods may be called concurrently.
type Server struct {
	config *pgx.ConnConfig
	// conn is the connection of all methods, because a new process of Postgres takes as long as a copy of a database. It belongs to the call that has the turn.
	turn chan struct{}
	conn *pgx.Conn
}

// servers are those of this process, by the database that they connect to. Their connections end with the process.
var servers sync.Map

// NewServer returns the server of a database that stays.
func NewServer(databaseURL string) (*Server, error) { return newServer(databaseURL, "") }

// Of returns the server of a test's database, which will be dropped.
func Of(testURL string) (*Server, error) {
	if external, ok := stack.ExternalDatabase(); ok {
		return NewServer(external)
	}
	return newServer(testURL, maintenance)
}

func newServer(databaseURL, database string) (*Server, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, err // pgx hides the password
	}
	delete(config.RuntimeParams, "search_path")
	delete(config.RuntimeParams, "application_name")
	if database != "" {
		config.Database = database
	}
	key := fmt.Sprintf("%s:%d %s %s", config.Host, config.Port, config.User, config.Database)
	s, _ := servers.LoadOrStore(key, &Server{config: config, turn: make(chan struct{}, 1)})
	return s.(*Server), nil
}

// Config returns a configuration for a connection to the server, as the user who makes the databases.
func (s *Server) Config() *pgx.ConnConfig { return s.config.Copy() }

// Exec runs statements, each in its own transaction.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	return s.use(ctx, func(conn *pgx.Conn) error { return execEach(ctx, conn, statements...) })
}

// use calls do with the server's connection. No other call uses it meanwhile.
func (s *Server) use(ctx context.Context, do func(conn *pgx.Conn) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.conn == nil || s.conn.Ping(ctx) != nil {
		conn, err := pgx.ConnectConfig(ctx, s.Config())
		if err != nil {
			return err
		}
		s.conn = conn
	}
	return do(s.conn)
}

func execEach(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, statement := range statements {
		_, err := conn.Exec(ctx, statement)
		for IsInUse(err) && ctx.Err() == nil { // Postgres waits 5 s for others, such as autovacuum
			time.Sleep(pause)
			_, err = conn.Exec(ctx, statement)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Create makes an empty database.
func (s *Server) Create(ctx context.Context, name string) error {
	return s.Exec(ctx, "CREATE DATABASE "+name)
}

// Drop drops a database, if it exists, with its replication slots. It ends the connections that are still in use, and returns how many they were.
func (s *Server) Drop(ctx context.Context, name string) (ended int, err error) {
	// Connections that were closed a moment ago end by themselves, each after its last rollback.
	for began := time.Now(); time.Since(began) < leave; time.Sleep(pause) {
		used := 0
		err := s.use(ctx, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT count(*) FROM "+users, name).Scan(&used)
		})
		if err != nil {
			return 0, err
		}
		if used == 0 {
			break
		}
	}
	for {
		n := 0
		err := s.use(ctx, func(conn *pgx.Conn) error {
			err := conn.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM "+users, name).Scan(&n)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
			return err
		})
		ended += n
		// The reader of a slot takes its time to end, and a program may connect again.
		if !IsInUse(err) || ctx.Err() != nil {
			return ended, err
		}
		time.Sleep(pause)
	}
}

// IsInUse reports whether a statement has failed because another process uses the object: the database, or a slot of it.
func IsInUse(err error) bool { return hasCode(err, "55006") } // object_in_use

func hasCode(err error, code string) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == code
}
