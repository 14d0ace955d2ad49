package cdc_test

import (
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// The example is a program that needs a database, so it is run from here. Not parallel: it prints.
func TestTheExampleDoesWhatItSays(t *testing.T) {
	d := newDatabase(t)
	d.exec(`create table account (id int primary key, balance numeric)`, `insert into account values (1, 10), (2, 20.50)`)
	c := d.config()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: "/" + d.name}
	if c.TLSConfig == nil {
		u.RawQuery = "sslmode=disable"
	}
	t.Setenv("DATABASE_URL", u.String())

	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = writer
	Example()
	os.Stdout = stdout
	require.NoError(t, writer.Close())
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	require.Equal(t, "read [1 10]\nread [2 20.50]\nupdate [1] [1 15]\ndelete [2] []\n", string(text))
}
