// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command network-policies enforces NetworkPolicies on the node that it runs on: kube-network-policies decides about
// the first packet of each connection, which this program's rules hand it. The rules that it makes itself take a part
// of nftables (CONFIG_NFT_QUEUE) that not every kernel has; these ask for the same by the older NFQUEUE.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "ready" {
		if err := listening(); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(client, factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(), factory.Core().V1().Pods(), nil, nil, nil, nil,
		networkpolicy.Config{QueueID: queue, NodeName: os.Getenv("NODE_NAME")})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	// Until the controller listens, the kernel drops what the rules queue: no connection begins undecided.
	if err := addRules(); err != nil {
		return err
	}
	return errors.Join(controller.Run(ctx), removeRules())
}
