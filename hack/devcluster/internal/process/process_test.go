// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestKillTakesOnlyTheRecordedProcess(t *testing.T) {
	record := filepath.Join(t.TempDir(), "x.process")
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	write := func(started string) {
		if err := os.WriteFile(record, fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, started), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("1") // the number belongs to someone else by now
	if Running(record) {
		t.Error("another process was taken for ours")
	}
	if err := Kill(record); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(cmd.Process.Pid); err != nil {
		t.Fatal("another process was killed")
	}

	write(started)
	if !Running(record) {
		t.Error("our process is not recognised")
	}
	if err := Kill(record); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(cmd.Process.Pid); err == nil {
		t.Error("our process still runs")
	}
	if err := Kill(record); err != nil {
		t.Errorf("without a record: %v", err)
	}
}
