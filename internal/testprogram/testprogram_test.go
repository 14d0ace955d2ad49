package testprogram_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/testprogram"
)

// With os.WriteFile, some are busy.
func TestAWrittenProgramIsNotBusy(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := range 50 {
				path := filepath.Join(dir, strconv.Itoa(worker)+"-"+strconv.Itoa(n))
				testprogram.Write(t, path, []byte("#!/bin/sh\n"))
				if err := exec.Command(path).Run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.False(t, t.Failed())
}
