// Package connstring describes errors of connection strings of Postgres without any part of them.
package connstring

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// DescribeError returns the reason why pgx does not take a connection string. pgx quotes the string, and hides the
// password as far as it recognizes it: of one with an unescaped "@", it shows the rest.
func DescribeError(err error) error {
	if !errors.As(err, new(*pgconn.ParseConfigError)) {
		return errors.New("it cannot be read")
	}
	text := err.Error()
	reason := text[strings.LastIndex(text, "`: ")+1:] // pgx writes: cannot parse `the string`: reason (cause)
	reason, cause, _ := strings.Cut(strings.TrimPrefix(reason, ": "), " (")
	if strings.HasPrefix(reason, "cannot parse `") {
		return errors.New("it cannot be read")
	}
	if strings.TrimSuffix(cause, ")") == "sslmode is invalid" {
		reason += ": sslmode is invalid"
	}
	return errors.New(reason)
}
