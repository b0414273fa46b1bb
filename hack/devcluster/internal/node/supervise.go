// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/nodeconf"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const (
	// respawnDelay keeps a daemon that can't start from filling the log.
	respawnDelay = time.Second
	// openFiles is asked for; less is fine where the machine's limit is lower.
	openFiles = 1 << 20
)

// supervise starts the daemons in their order and reaps for ever: as PID 1 it is the parent of every orphan, of
// containerd's shims above all.
func supervise(n topology.Node) error {
	raiseOpenFiles()
	s := &supervisor{waiters: map[int]chan<- syscall.WaitStatus{}}
	go s.start(n)
	s.reap()
	return errors.New("PID 1 of a node never ends")
}

func raiseOpenFiles() {
	limit := unix.Rlimit{Cur: openFiles, Max: openFiles}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return
	}
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

// supervisor owns every child of PID 1. os/exec can't be used: it waits for its own children, and so does reap.
type supervisor struct {
	mu      sync.Mutex
	waiters map[int]chan<- syscall.WaitStatus
}

func (s *supervisor) start(n topology.Node) {
	for _, d := range nodeconf.First(n) {
		go s.keep(d)
	}
	waitForContainerd()
	s.importBoot("pause.tar")
	for _, d := range nodeconf.Second(n) {
		go s.keep(d)
	}
	s.importBoot("coredns.tar")
}

func waitForContainerd() {
	for {
		c, err := net.Dial("unix", nodeconf.ContainerdSocket)
		if err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// importBoot imports one archive. containerd may accept connections a little before it serves, so it tries again.
func (s *supervisor) importBoot(archive string) {
	argv := []string{
		nodeconf.BinDir + "/ctr", "-n", "k8s.io", "images", "import", "--local", filepath.Join(nodeconf.BootDir, archive),
	}
	for {
		done, err := s.spawn("images", argv)
		if err == nil && (<-done).ExitStatus() == 0 {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// keep runs a daemon for ever.
func (s *supervisor) keep(d nodeconf.Daemon) {
	for {
		done, err := s.spawn(d.Name, d.Argv())
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", d.Name, err)
		} else {
			status := <-done
			fmt.Fprintf(os.Stderr, "%s ended: exit status %d, signal %d; starting it again\n", d.Name, status.ExitStatus(),
				status.Signal())
		}
		time.Sleep(respawnDelay)
	}
}

// spawn starts a process whose output goes to the log of that name.
func (s *supervisor) spawn(log string, argv []string) (<-chan syscall.WaitStatus, error) {
	out, err := os.OpenFile(filepath.Join(nodeconf.LogDir, log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	done := make(chan syscall.WaitStatus, 1)
	// Held while starting, so that reap can't meet a child before its waiter is known.
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: nodeconf.Environment(), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	s.waiters[pid] = done
	return done, nil
}

func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD): // before the first daemon, or between two
			time.Sleep(20 * time.Millisecond)
		case err == nil:
			s.mu.Lock()
			if done, ok := s.waiters[pid]; ok {
				delete(s.waiters, pid)
				done <- status
			}
			s.mu.Unlock()
		}
	}
}
