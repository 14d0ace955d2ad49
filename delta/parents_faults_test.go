package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// No workflow stores waiting children and pending touches, so they survive a wipe of Temporal.
func TestWaitingChildrenOutliveAWipedTemporal(t *testing.T) {
	soak.Long(t)
	inFamilies(t, childrenOfAWipedTemporal[single], childrenOfAWipedTemporal[batches])
}

func childrenOfAWipedTemporal[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	server := startTemporal(t)
	config := f.touchedConfig(f.payments(), f.accounts())
	config.Temporal, config.TemporalNamespace = server.dial(), ""
	config.MaintenanceJobInterval = 200 * time.Millisecond
	f.c = f.start(config)
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{accountRef("ann")}}, payment[M]{Name: "of p", Of: []delta.Ref{paymentRef("p")}})
	f.awaitWaiting("p", accountRef("ann"))
	f.awaitWaiting("of p", paymentRef("p"))

	server.end()
	f.inform(account{Name: "ann"}, payment[M]{Name: "q", Of: []delta.Ref{accountRef("ann")}})
	require.Zero(t, f.callsOf("p"))
	server.again()
	for _, name := range []string{"p", "of p", "q"} {
		f.awaitSynced("payment", name, 1)
	}
	f.awaitCalm()

	server.end()
	f.inform(account{Name: "ann", Plan: "gold"})
	server.again()
	f.awaitSynced("payment", "p", 2)
	f.awaitSynced("payment", "q", 2)
	f.awaitCalm()
	require.EqualValues(t, 1, f.generation("of p"))
}
