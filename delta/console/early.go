package console

import (
	"bytes"
	"net/http"
	"time"
)

// earlyAfter is how long a page waits for what is slow, such as Temporal, before its beginning is sent: a person sees at once that something comes.
const earlyAfter = 50 * time.Millisecond

// early is an answer whose beginning was sent before it was known what follows: its status and headers are fixed.
type early struct {
	http.ResponseWriter
	// head is the part that was sent.
	head []byte
}

// readForPage reads what a page with a title needs, and returns the writer for the page: where reading takes long, the beginning of the page is sent meanwhile.
func readForPage[T any](h *handler, w http.ResponseWriter, r *http.Request, title string, read func() (T, error)) (T, http.ResponseWriter, error) {
	type result struct {
		value T
		err   error
	}
	ready := make(chan result, 1)
	go func() {
		value, err := read()
		ready <- result{value, err}
	}()
	select {
	case got := <-ready:
		return got.value, w, got.err
	case <-time.After(earlyAfter):
	}
	w = h.sendEarly(w, r, title)
	got := <-ready
	return got.value, w, got.err
}

// sendEarly sends the beginning of the page with a title, and returns the writer for the rest of it.
func (h *handler) sendEarly(w http.ResponseWriter, r *http.Request, title string) http.ResponseWriter {
	if h.config.Authorize != nil {
		formToken(w, r) // forms that follow need its cookie
	}
	var head bytes.Buffer
	if err := templates.ExecuteTemplate(&head, "head", title); err != nil {
		return w // the page fails by it, too
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it until its end
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(head.Bytes())
	_ = http.NewResponseController(w).Flush() // a writer that cannot sends it at its end
	return &early{w, head.Bytes()}
}

// rest is a page without the beginning that was sent of it, which may have had another title.
func (e *early) rest(page []byte) []byte {
	const end = "<main id=\"main\" tabindex=\"-1\">\n"
	if _, rest, found := bytes.Cut(page, []byte(end)); found && bytes.HasSuffix(e.head, []byte(end)) {
		return rest
	}
	return page
}
