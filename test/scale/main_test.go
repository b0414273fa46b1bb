// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/command"
)

// size of the cluster. Each waypoint is that of one namespace, among which Services and routes are spread evenly.
type size struct {
	Nodes, Services, Pods, Routes, Waypoints int
	// Dials is how many Services' addresses each node proxy has asked for.
	Dials int
}

var (
	want   size
	output = flag.String("scale-output", "", "write the figures to this file, as JSON")
	edits  = flag.Int("scale-edits", 3, "how many edits, endpoints and pods are measured")

	profiles    = flag.String("profiles", "", "write profiles of the operators into this directory")
	environment = flag.String("operator-env", "", "variables of the operators, such as GOGC=50")
)

func init() {
	flag.IntVar(&want.Nodes, "scale-nodes", 20, "nodes, with a proxy each")
	flag.IntVar(&want.Services, "scale-services", 200, "Services")
	flag.IntVar(&want.Pods, "scale-pods", 1000, "pods, spread over Services and nodes")
	flag.IntVar(&want.Routes, "scale-routes", 50, "HTTPRoutes, at most one for each Service")
	flag.IntVar(&want.Waypoints, "scale-waypoints", 10, "namespaces with a waypoint of two proxies")
	flag.IntVar(&want.Dials, "scale-dials", 10, "Services that the pods of a node dial")
}

const (
	envOperator = "FAIRWAY_SCALE_OPERATOR"
	envInside   = "FAIRWAY_SCALE_INSIDE"
	portPprof   = 6060
)

// TestMain has the process be one of three: an operator, the test in a network namespace of its own, or what starts
// that. All that the test does to the network ends with its namespace.
func TestMain(m *testing.M) {
	if os.Getenv(envOperator) != "" {
		os.Exit(operate())
	}
	if os.Geteuid() == 0 && os.Getenv(envInside) == "" {
		os.Exit(inside())
	}
	flag.Parse()
	os.Exit(m.Run())
}

// inside runs the tests in a new network namespace.
func inside() int {
	runtime.LockOSThread() // the test ends with the thread that started it
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "start the test in a network namespace:", err)
		return 1
	}
	return 0
}

// operate is `fairway operator`, with profiles, until it is told to end or the test has ended.
func operate() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
		stop()
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/heap", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		_ = pprof.Lookup("heap").WriteTo(w, 0)
	})
	var profile bytes.Buffer
	mux.HandleFunc("/profile/start", func(http.ResponseWriter, *http.Request) {
		profile.Reset()
		_ = pprof.StartCPUProfile(&profile)
	})
	mux.HandleFunc("/profile/stop", func(w http.ResponseWriter, _ *http.Request) {
		pprof.StopCPUProfile()
		_, _ = w.Write(profile.Bytes())
	})
	mux.HandleFunc("/gc", func(http.ResponseWriter, *http.Request) { runtime.GC() })
	profiles := &http.Server{Addr: fmt.Sprintf(":%d", portPprof), Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { _ = profiles.ListenAndServe() }()
	cmd := command.Operator()
	cmd.SetArgs(os.Args[1:])
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
