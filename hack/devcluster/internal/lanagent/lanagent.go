// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lanagent is the one process of the dev cluster outside the nodes. It stands with one foot in the machine's
// network namespace, where it forwards a loopback port to the API server, and with the other in the lan, where it gives
// Services of type LoadBalancer their addresses and routes.
package lanagent

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/pki"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/process"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// Command is the hidden subcommand that runs the agent. It inherits its listener as file 3.
const Command = "lan-agent"

// name of the agent's process record and log.
const name = "lan-agent"

// preferredPort is taken on loopback when it is free, so that kubeconfigs survive the cluster.
const preferredPort = 16443

// listenerFD is the first file after standard input, output and error.
const listenerFD = 3

// Start starts the agent unless it runs, and writes both kubeconfigs.
func Start(home topology.Home) error {
	if process.Running(home.Process(name)) {
		return nil
	}
	// Listening before the agent starts means that its port is known at once and no client comes too early.
	l, err := listen()
	if err != nil {
		return fmt.Errorf("forwarder to the API server: %w", err)
	}
	defer l.Close()
	if err := writeKubeconfigs(home, l.Addr().String()); err != nil {
		return err
	}
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd, err := process.Self(home.Log(name), Command)
	if err != nil {
		return err
	}
	cmd.ExtraFiles = []*os.File{file}
	return process.Start(cmd, home.Process(name))
}

// Stop stops the agent.
func Stop(home topology.Home) error { return process.Kill(home.Process(name)) }

func listen() (*net.TCPListener, error) {
	loopback := net.IPv4(127, 0, 0, 1)
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: loopback, Port: preferredPort})
	if err != nil {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: loopback})
	}
	return l, err
}

func writeKubeconfigs(home topology.Home, forwarder string) error {
	admin := filepath.Join(home.PKI(), "admin.conf")
	for path, server := range map[string]string{
		home.Kubeconfig(): forwarder, home.InnerKubeconfig(): topology.APIAddress(),
	} {
		data, err := pki.WithServer(admin, "https://"+server)
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("writing the kubeconfig: %w", err)
		}
	}
	return nil
}

// Run is the agent's life.
func Run(ctx context.Context, home topology.Home) error {
	l, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("no listener at file %s: the agent is started by `up`: %w", strconv.Itoa(listenerFD), err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", home.InnerKubeconfig())
	if err != nil {
		return err
	}
	config.Dial = dialInLan
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	routes, err := openRoutes()
	if err != nil {
		return err
	}
	log.Printf("forwarding %s to %s", l.Addr(), topology.APIAddress())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return forward(ctx, l) })
	g.Go(func() error { return newBalancer(client, routes).run(ctx) })
	return g.Wait()
}
