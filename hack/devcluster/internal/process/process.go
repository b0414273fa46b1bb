// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process keeps track of the few long-lived processes that the dev cluster starts. A process is recorded by its
// number and its start time, so that a number that the kernel gave to someone else is never taken for ours, let alone
// killed.
package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is what processes of the dev cluster are called.
const Name = "fairway-devcluster"

// killTimeout bounds the wait for a killed process to be gone.
const killTimeout = 20 * time.Second

// Self returns a command that runs this very program with other arguments, apart from the terminal, its output in the
// file log.
func Self(log string, args ...string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = Name
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// Start starts a command made by Self, records it in the file record, and lets go of it.
func Start(cmd *exec.Cmd, record string) error {
	if out, ok := cmd.Stdout.(*os.File); ok {
		defer out.Close()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	started, err := startTime(cmd.Process.Pid)
	if err == nil {
		err = os.WriteFile(record, fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, started), 0o644)
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return cmd.Process.Release()
}

// PID returns the number of the recorded process, or an error where it doesn't run.
func PID(record string) (int, error) {
	data, err := os.ReadFile(record)
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(data))
	if len(f) != 2 {
		return 0, fmt.Errorf("%s: want a process number and a start time", record)
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		return 0, fmt.Errorf("%s: %w", record, err)
	}
	started, err := startTime(pid)
	if err != nil {
		return 0, err
	}
	if started != f[1] {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return pid, nil
}

// Running says whether the recorded process runs.
func Running(record string) bool {
	_, err := PID(record)
	return err == nil
}

// Kill kills the recorded process, waits until it is gone, and removes the record. No record is no error.
func Kill(record string) error {
	if pid, err := PID(record); err == nil {
		if err := killAndWait(pid); err != nil {
			return fmt.Errorf("killing %s: %w", filepath.Base(record), err)
		}
	}
	if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	deadline := time.Now().Add(killTimeout)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d is still there after %s", pid, killTimeout)
}

// startTime returns when a live process started, in clock ticks since boot (field 22 of /proc/PID/stat).
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	// The second field is the command in brackets, which may hold anything; the third is the state.
	after := data[strings.LastIndexByte(string(data), ')')+1:]
	f := strings.Fields(string(after))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "", fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return f[19], nil
}
