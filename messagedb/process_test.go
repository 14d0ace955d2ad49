package messagedb_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// The test below kills processes: this test binary, run again as a member of a group.
const (
	memberEnv       = "MESSAGEDB_TEST_MEMBER"
	memberURL       = "MESSAGEDB_TEST_URL"
	processMembers  = 2
	processInterval = 20
)

func init() {
	member := os.Getenv(memberEnv)
	if member == "" {
		return
	}
	fmt.Println("error:", beMember(member))
	os.Exit(1)
}

func beMember(member string) error {
	ctx := context.Background()
	n, err := strconv.Atoi(member)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv(memberURL))
	if err != nil {
		return err
	}
	client, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet})
	if err != nil {
		return err
	}
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
		Category: "killed", Identifier: "fleet", Group: &messagedb.Group{Member: n, Size: processMembers},
		PositionInterval: processInterval, Polling: messagedb.IdlePolling(10 * time.Millisecond),
		Handler: func(ctx context.Context, m *messagedb.Message) error {
			_, err := pool.Exec(ctx, "INSERT INTO public.handled VALUES ($1, $2)", m.Stream, m.Position)
			return err
		},
	})
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// Members in separate processes are killed (SIGKILL) and restarted: each message is handled. For each death, at most a position interval of messages, and the one
// before it, are handled twice.
func TestMembersThatAreKilledLoseNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const messages = 1500
	s := newStore(t)
	_, err := s.pool.Exec(t.Context(), "CREATE TABLE public.handled (stream text, position bigint)")
	require.NoError(t, err)
	c := s.config.ConnConfig
	url := fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", c.User, c.Password, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
	start := func(member int) (kill func()) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), memberEnv+"="+strconv.Itoa(member), memberURL+"="+url)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		require.NoError(t, cmd.Start())
		return func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	kills := make([]func(), processMembers)
	for member := range kills {
		kills[member] = start(member)
	}
	defer func() {
		for _, kill := range kills {
			kill()
		}
	}()
	count := func(query string) (n int) {
		require.NoError(t, s.pool.QueryRow(t.Context(), query).Scan(&n))
		return n
	}
	const distinct = "SELECT count(*) FROM (SELECT DISTINCT stream, position FROM public.handled) d"
	deaths := 0
	for i := range messages {
		_, err := s.client.WriteMessage(t.Context(), messagedb.StreamName(fmt.Sprintf("killed-%d", i%20)),
			messagedb.ProposedMessage{Type: "T", Data: messagedb.NoData}, messagedb.AnyVersion)
		require.NoError(t, err)
		if i%300 == 299 {
			// One that has begun to handle is killed in the middle of it.
			require.Eventually(t, func() bool { return count(distinct) > i/2 }, soon, 5*time.Millisecond)
			member := rand.IntN(processMembers)
			kills[member]()
			deaths++
			kills[member] = start(member)
		}
	}
	require.Eventually(t, func() bool { return count(distinct) == messages }, soon, 20*time.Millisecond)
	duplicates := count("SELECT count(*) FROM public.handled") - messages
	t.Logf("%d deaths, %d duplicates", deaths, duplicates)
	require.LessOrEqual(t, duplicates, deaths*(processInterval+1))
}
