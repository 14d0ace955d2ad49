//go:build linux

package cdc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// chaosURL is set for the child process that is the client.
const chaosURL = "CDC_CHAOS_URL"

// TestClientOfTheSoak is the child process: it prints each transaction before it may acknowledge it, and reports
// incomplete ones.
func TestClientOfTheSoak(t *testing.T) {
	url := os.Getenv(chaosURL)
	if url == "" {
		t.Skip("it is a part of TestSoakOfAClientThatIsKilled")
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	var s *cdc.Stream
	for s == nil { // the server may be down
		s, err = cdc.Open(ctx, cdc.Config{
			Conn: config, Slot: "chaos", Publications: []string{"chaos"}, Logger: quiet,
			StatusInterval: 200 * time.Millisecond, Timeout: time.Minute, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond,
		})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, cdc.ErrResyncNeeded) {
			fmt.Println("E", err)
			return
		}
		if err != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	defer s.Close()
	fmt.Println("OPEN")
	var last cdc.LSN
	for {
		waiting, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		transaction, err := s.Next(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded): // a server that shuts down waits for this
			if last != 0 {
				_ = s.Ack(last)
			}
			continue
		case err != nil:
			fmt.Println("E", err)
			return
		}
		parts, line := 0, ""
		for change, err := range transaction.Changes() {
			if err != nil {
				fmt.Println("E", err)
				return
			}
			writer, seq, part, of := change.New[0].Text, change.New[1].Text, change.New[2].Text, change.New[3].Text
			if now := fmt.Sprint("T ", transaction.EndLSN, " ", writer, " ", seq, " ", of); part != fmt.Sprint(parts) || line != "" && now != line {
				fmt.Println("E", "part", part, "of", now, "came as", parts, "of", line)
			} else {
				line = now
			}
			parts++
		}
		if !strings.HasSuffix(line, fmt.Sprint(" ", parts)) {
			fmt.Println("E", parts, "parts of", line)
		}
		fmt.Println(line)
		if last = transaction.EndLSN; rand.IntN(10) == 0 {
			if err := s.Ack(last); err != nil {
				fmt.Println("E", err)
			}
		}
	}
}

// chaos is the state of the parent process.
type chaos struct {
	t      *testing.T
	server *privateServer
	d      *database

	mu         sync.Mutex
	seen       []int // the last transaction of each writer
	duplicates int
	problems   []string
	confirmed  cdc.LSN         // by the server, before the client started
	opened     bool            // the client knows what is confirmed
	life       map[string]bool // printed by this client
}

// startClient runs a client until it is killed.
func (c *chaos) startClient(url string) (kill func(os.Signal)) {
	c.t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestClientOfTheSoak$", "-test.timeout=0")
	command.Env = append(os.Environ(), chaosURL+"="+url)
	out, err := command.StdoutPipe()
	require.NoError(c.t, err)
	c.life, c.opened = map[string]bool{}, false
	require.NoError(c.t, command.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.handleLine(lines.Text())
		}
		_ = command.Wait() // it was killed
	}()
	return func(sig os.Signal) {
		_ = command.Process.Signal(sig)
		<-done
	}
}

func (c *chaos) handleLine(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var end string
	var writer, seq, of int
	if strings.HasPrefix(text, "E ") {
		c.problems = append(c.problems, text)
	}
	c.opened = c.opened || text == "OPEN"
	if n, _ := fmt.Sscanf(text, "T %s %d %d %d", &end, &writer, &seq, &of); n != 4 {
		return // of the testing package, or incomplete
	}
	lsn, err := cdc.ParseLSN(end)
	key := fmt.Sprint(writer, " ", seq)
	switch {
	case err != nil:
		c.problems = append(c.problems, err.Error())
	case c.life[key]:
		c.problems = append(c.problems, "twice in one stream: "+text)
	case lsn <= c.confirmed:
		c.problems = append(c.problems, fmt.Sprintf("confirmed at %s, and again: %s", c.confirmed, text))
	case seq <= c.seen[writer]:
		c.duplicates++
	case seq != c.seen[writer]+1:
		c.problems = append(c.problems, fmt.Sprintf("lost before %q: the last was %d", text, c.seen[writer]))
	default:
		c.seen[writer] = seq
	}
	c.life[key] = true
}

// writeBatch commits one transaction after the other, each exactly once, even if the server is killed.
func (c *chaos) writeBatch(ctx context.Context, writer int) (written int) {
	background := context.Background()
	var conn *pgx.Conn
	for seq := 1; ctx.Err() == nil; {
		if conn == nil || conn.IsClosed() {
			connecting, cancel := context.WithTimeout(background, 5*time.Second)
			var err error
			conn, err = pgx.ConnectConfig(connecting, c.d.pool.Config().ConnConfig.Copy())
			if err == nil { // the last one may have committed after all
				err = conn.QueryRow(connecting, `select coalesce(max(seq), 0) from events where writer = $1`, writer).Scan(&written)
				seq = written + 1
			}
			cancel()
			if err != nil {
				if conn != nil {
					_ = conn.Close(background)
				}
				conn = nil
				time.Sleep(10 * time.Millisecond)
				continue
			}
		}
		parts := 1 + rand.IntN(5)
		if rand.IntN(50) == 0 {
			parts = 3000 // more than the client may hold
		}
		sql := fmt.Sprintf(`insert into events select %d, %d, i, %d, repeat('x', 200) from generate_series(0, %d) i`, writer, seq, parts, parts-1)
		if _, err := conn.Exec(background, sql); err != nil {
			_ = conn.Close(background)
			continue
		}
		written = seq
		seq++
	}
	if conn != nil {
		_ = conn.Close(background)
	}
	return written
}

// Not parallel, because it uses the whole machine.
func TestSoakOfAClientThatIsKilled(t *testing.T) {
	long := soak.Time(t, 4*time.Second)
	server, d := newPrivateServer(t)
	d.exec(`create table events (writer int, seq int, part int, of int, filler text, primary key (writer, seq, part))`,
		`create publication chaos for all tables`, `select pg_create_logical_replication_slot('chaos', 'pgoutput')`)
	const writers = 3
	c := &chaos{t: t, server: server, d: d, seen: make([]int, writers)}
	url := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", d.Config().Port)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	written := make([]int, writers)
	for w := range writers {
		work.Go(func() { written[w] = c.writeBatch(ctx, w) })
	}
	defer work.Wait()
	defer cancel()

	kill := c.startClient(url)
	t.Cleanup(func() { kill(syscall.SIGKILL) })
	faults := []string{"restart", "crash", "walsender", "walsender", "kill", "kill", "close"}
	count, longest, began := map[string]int{}, soak.Count(t, 400, 800), time.Now()
	for n := 0; n < len(faults) || time.Since(began) < long; n++ {
		time.Sleep(time.Duration(200+rand.IntN(longest)) * time.Millisecond) // before the kill, so that processes have run for a while
		if n%len(faults) == 0 {
			rand.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		}
		what := faults[n%len(faults)]
		count[what]++
		switch what {
		case "restart", "crash":
			sig := os.Signal(syscall.SIGINT)
			if what == "crash" {
				sig = syscall.SIGQUIT
			}
			// A restarted server may have forgotten the last confirmation. A client with an open stream has not; one that has
			// not opened it yet begins at the server's position.
			c.mu.Lock()
			if !c.opened {
				c.confirmed = 0
			}
			c.mu.Unlock()
			server.Stop(sig)
			server.Start()
			d.pool.Reset()
		case "walsender":
			d.exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where active`)
		case "kill", "close":
			sig := os.Signal(syscall.SIGKILL)
			if what == "close" {
				sig = syscall.SIGTERM
			}
			kill(sig)
			// The server handles the last messages of the dead client until it releases the slot.
			require.Eventually(t, func() bool { return !queryValue[bool](d, `select active from pg_replication_slots`) }, cdctest.Patience, 5*time.Millisecond)
			confirmed, err := cdc.ParseLSN(queryValue[string](d, `select confirmed_flush_lsn::text from pg_replication_slots`))
			require.NoError(t, err)
			c.mu.Lock()
			c.confirmed = confirmed
			c.mu.Unlock()
			kill = c.startClient(url)
		}
	}
	cancel()
	work.Wait()
	state := func() (seen string, over bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Sprint(c.seen, c.duplicates), fmt.Sprint(c.seen) == fmt.Sprint(written) || len(c.problems) > 0
	}
	// How long catching up takes depends on the machine, so only progress is required.
	for before, patience := "", time.Now().Add(cdctest.Patience); ; time.Sleep(50 * time.Millisecond) {
		seen, over := state()
		if over {
			break
		}
		if seen != before {
			before, patience = seen, time.Now().Add(cdctest.Patience)
		}
		require.True(t, time.Now().Before(patience), "no progress: %s of %v", seen, written)
	}
	kill(syscall.SIGTERM)
	require.Empty(t, c.problems)
	require.Equal(t, written, c.seen, "nothing is lost")
	for w := range writers {
		require.Positive(t, written[w])
		require.Equal(t, written[w], queryValue[int](d, `select count(distinct seq) from events where writer = $1`, w))
	}
	t.Logf("%v written and read in %s, %d came twice, after %v", written, time.Since(began), c.duplicates, count)
}
