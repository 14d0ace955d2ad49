package server_test

import (
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

var screenshots = flag.Bool("screenshots", false, "write the screenshots of docs/images")

// After entering the token, a person sees the slots with their lag, and changes as they happen.
func TestThePage(t *testing.T) {
	t.Parallel()
	soak.Long(t)
	b := browsertest.New(t)
	h := newHarness(t, func(c *server.Config) { c.Tokens = []string{secret} })
	h.Exec(accounts, `create table payment (id int primary key, amount numeric(10,2), note text)`)
	bearer := []string{"Authorization", "Bearer " + secret}
	for name, body := range map[string]string{
		"accounts_" + h.s[4:]: `"tables":["public.account"]`, "books_" + h.s[4:]: `"tables":["public.*"],"snapshot":false`,
	} {
		require.Equal(t, 201, h.request("POST", "/v2/slots", `{"name":"`+name+`",`+body+`}`, bearer...).status)
	}
	c := h.dialStream("/v2/slots/books_"+h.s[4:]+"/stream", bearer...)
	go func() { // it reads the slot, and keeps nothing
		for {
			m, err := c.readAny()
			if err != nil {
				return
			}
			if m.Final {
				c.sendAck(m.LSN)
			}
		}
	}()

	b.Open(h.url + "/")
	b.Shows("This server asks for a token")
	b.Execute(`document.getElementById('token').value = 'wrong'; document.getElementById('access').requestSubmit()`)
	b.Shows("It is not this one.")
	b.Execute(`document.getElementById('token').value = '` + secret + `'; document.getElementById('access').requestSubmit()`)
	b.Shows("accounts_" + h.s[4:])
	b.Shows("streaming")
	b.Shows("waiting, snapshot held")
	require.Equal(t, 200, h.request("GET", "/v1/init", "", bearer...).status)
	b.Shows("session of /v1")
	require.NotContains(t, b.Text(), "This server asks for a token")

	b.Execute(`document.getElementById('tables').value = 'public.*'; document.getElementById('tail').requestSubmit()`)
	require.Eventually(t, func() bool { return b.Execute(`return document.getElementById('state').textContent`) == "Following" }, cdctest.Patience, 50*time.Millisecond)
	h.Exec(
		`insert into account (id, name, balance, ok) values (1, 'Ann', 12.50, true), (2, 'Bob <script>alert(1)</script>', 8, false)`,
		`update account set balance = 15 where id = 1`,
		`insert into payment values (1, 99999999.99, 'a large one')`,
		`delete from account where id = 2`,
		`truncate payment`,
	)
	for _, says := range []string{`balance="15.00"`, `amount="99999999.99"`, `name="Bob <script>alert(1)</script>"`} {
		b.Shows(says)
	}
	for _, kind := range []string{"insert", "update", "delete", "truncate"} { // these words are also in the form
		require.Eventually(t, func() bool {
			return b.Execute(`return [...document.querySelectorAll('#changes > *')].some(e => e.textContent.includes('`+kind+`'))`) == true
		}, cdctest.Patience, 50*time.Millisecond, kind)
	}
	b.Shows("KiB") // the slot without a reader has a lag
	require.Empty(t, b.Execute(`return [...document.querySelectorAll('input:not([type=checkbox])')].filter(i => !i.labels.length).map(i => i.id)`), "inputs without a label")
	if *screenshots {
		require.NoError(t, os.MkdirAll("../../docs/images", 0o755))
		b.Picture("../../docs/images/stream.png")
	}
	b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
		"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true},
	}, nil)
	require.Empty(t, b.Execute(`return [...document.querySelectorAll('body *')].filter(e => e.tagName !== 'THEAD' && !e.closest('thead') &&
		e.getBoundingClientRect().right > 390).map(e => e.outerHTML)`), "what a telephone cuts off")
	b.Execute(`document.getElementById('tail').requestSubmit()`)
	require.Eventually(t, func() bool { return strings.Contains(b.Text(), "Not following") }, cdctest.Patience, 50*time.Millisecond)
}
