package server

import (
	"fmt"
	"net/http"

	"github.com/chariot-giving/delta/cdc"
)

// checkSkips refuses an entry that is neither a position nor a pattern.
func checkSkips(skips []string) error {
	for _, one := range skips {
		if _, err := cdc.ParseLSN(one); err == nil {
			continue
		}
		if _, err := cdc.MatchTable(one, ""); err != nil || one == "" {
			return invalidField("SkipUndecodable", one, "a position, such as 0/16B3748, or a pattern of schema.table")
		}
	}
	return nil
}

// isSkipped reports whether an entry matches a row. If Postgres itself cannot decode a row, its table is unknown, and only * matches.
func isSkipped(decisions []string, row *cdc.UndecodableError) bool {
	for _, one := range decisions {
		if at, err := cdc.ParseLSN(one); err == nil {
			if at == row.LSN {
				return true
			}
			continue
		}
		if match, _ := cdc.MatchTable(one, row.Table); match {
			return true
		}
	}
	return false
}

// skipUndecodable decides whether a row is left out, and counts it. The streams and snapshots log it.
func (s *Server) skipUndecodable(row *cdc.UndecodableError) bool {
	own := s.config.Stream.SkipUndecodable
	if !isSkipped(s.config.SkipUndecodable, row) && (own == nil || !own(row)) {
		return false
	}
	s.metrics.undecodable.Inc()
	return true
}

// undecodableProblem tells a client which row cannot be decoded, and how to leave it out.
func undecodableProblem(row *cdc.UndecodableError, text string) *problem {
	return newProblem(http.StatusUnprocessableEntity, "undecodable", fmt.Sprintf("%s. To leave it out for all clients, start the server with --skip-undecodable %s", text, row.LSN))
}
