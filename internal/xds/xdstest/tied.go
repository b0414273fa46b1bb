// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// StartTied starts a command that the kernel ends when the test's process does, however that ends. The channel is
// closed once the command has ended.
//
// To the kernel, the parent is the thread that started the command, and in Go threads end: with a goroutine that was
// locked to one in another network namespace, for example. So the command gets a thread of its own, which lives as
// long.
func StartTied(cmd *exec.Cmd) (<-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return done, <-started
}
