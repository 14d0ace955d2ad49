package console

import (
	"bytes"
	"net/http"
	"time"
)

// earlyAfter is how long a page waits for slow reads, such as those of Temporal, before its beginning is sent, so that a person soon sees a response.
const earlyAfter = 50 * time.Millisecond

// earlyResponse is a response whose beginning was sent before the rest was known: its status and headers are fixed.
type earlyResponse struct {
	http.ResponseWriter
	// head is the part that was sent.
	head []byte
}

// readForPage reads the data of a page with a title, and returns the writer for the page. If reading takes long, it sends the beginning of the page.
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

// sendEarly sends the beginning of the page with a title, and returns the writer for the remaining part.
func (h *handler) sendEarly(w http.ResponseWriter, r *http.Request, title string) http.ResponseWriter {
	if h.config.Authorize != nil {
		formToken(w, r) // the forms of the page need its cookie
	}
	var head bytes.Buffer
	if err := templates.ExecuteTemplate(&head, "head", title); err != nil {
		return w // rendering the page fails with the same error
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // otherwise nginx buffers the response until its end
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(head.Bytes())
	_ = http.NewResponseController(w).Flush() // a writer that cannot flush sends it at the end
	return &earlyResponse{w, head.Bytes()}
}

// cutHead returns a page without the beginning that was already sent, which may have had another title.
func (e *earlyResponse) cutHead(page []byte) []byte {
	const end = "<main id=\"main\" tabindex=\"-1\">\n"
	if _, rest, found := bytes.Cut(page, []byte(end)); found && bytes.HasSuffix(e.head, []byte(end)) {
		return rest
	}
	return page
}
