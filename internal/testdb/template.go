package testdb

import (
	"context"
	"fmt"
	"hash/crc32"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Template is a database that tests copy. The first test that needs it makes it, and it stays.
type Template struct {
	// Name is the name of the database. It changes with what is in it.
	Name string
	// Fill makes what is in it. Its pool is closed afterwards, because only a database without connections can be copied.
	Fill func(ctx context.Context, pool *pgxpool.Pool) error
}

// Copy makes a database that is a copy of a template.
func (s *Server) Copy(ctx context.Context, name string, template Template) error {
	return s.use(ctx, func(conn *pgx.Conn) error {
		statement, err := copying(ctx, conn, name, template.Name)
		if err != nil {
			return err
		}
		err = execEach(ctx, conn, statement)
		if hasCode(err, "3D000") { // invalid_catalog_name: there is no such database
			if err := s.makeTemplate(ctx, conn, template); err != nil {
				return fmt.Errorf("making the template of tests' databases: %w", err)
			}
			err = execEach(ctx, conn, statement)
		}
		return err
	})
}

// copying returns the statement that copies a template. Since Postgres 15 there is a choice, and the default, which writes each page to the log, takes twice
// the time for a template of this size (https://www.postgresql.org/docs/15/sql-createdatabase.html).
func copying(ctx context.Context, conn *pgx.Conn, name, template string) (statement string, err error) {
	var chosen bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int >= 150000`).Scan(&chosen)
	statement = "CREATE DATABASE " + name + " TEMPLATE " + template
	if chosen {
		statement += " STRATEGY file_copy"
	}
	return statement, err
}

// makeTemplate makes a template, unless another process does so meanwhile.
func (s *Server) makeTemplate(ctx context.Context, conn *pgx.Conn, template Template) (err error) {
	lock := int64(crc32.ChecksumIEEE([]byte(template.Name)))
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lock); err != nil {
		return err
	}
	defer func() {
		if _, failed := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, lock); err == nil {
			err = failed
		}
	}()
	var made bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, template.Name).Scan(&made); err != nil || made {
		return err
	}
	// It has its name when it is complete, so that a process that is killed here leaves no half of one.
	draft := template.Name + "_draft"
	if err := execEach(ctx, conn, "DROP DATABASE IF EXISTS "+draft+" WITH (FORCE)", "CREATE DATABASE "+draft); err != nil {
		return err
	}
	if err := s.fill(ctx, draft, template); err != nil {
		return err
	}
	return execEach(ctx, conn, "ALTER DATABASE "+draft+" ALLOW_CONNECTIONS false", "ALTER DATABASE "+draft+" RENAME TO "+template.Name)
}

func (s *Server) fill(ctx context.Context, draft string, template Template) error {
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return err
	}
	config.ConnConfig = s.Config()
	config.ConnConfig.Database = draft
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	return template.Fill(ctx, pool)
}
