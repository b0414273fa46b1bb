// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/cluster"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/images"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/lanagent"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/node"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/oci"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// app is what the subcommands share.
type app struct {
	home   topology.Home
	source string
}

func (a *app) locate() (err error) {
	a.home, err = topology.FindHome()
	return err
}

// cluster is for commands that need no source tree.
func (a *app) cluster() *cluster.Cluster { return &cluster.Cluster{Home: a.home, Out: os.Stderr} }

// builder finds the source tree and opens the image store.
func (a *app) builder() (*images.Builder, error) {
	source := a.source
	if source == "" {
		var err error
		if source, err = topology.FindSource(); err != nil {
			return nil, err
		}
	}
	source, err := filepath.Abs(source)
	if err != nil {
		return nil, err
	}
	store, err := oci.OpenStore(a.home.Images())
	if err != nil {
		return nil, err
	}
	return &images.Builder{Builder: &build.Builder{Home: a.home, Source: source, Out: os.Stderr}, Store: store}, nil
}

func (a *app) loader(store *oci.Store) *images.Loader {
	return &images.Loader{Home: a.home, Store: store, Out: os.Stderr}
}

// changing wraps a command that changes the cluster or the binaries: only one at a time may.
func (a *app) changing(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		unlock, err := cluster.Lock(a.home, os.Stderr)
		if err != nil {
			return err
		}
		defer unlock()
		return f(cmd.Context(), args)
	}
}

// withBuilder is changing for commands that build.
func (a *app) withBuilder(f func(ctx context.Context, b *images.Builder) error) func(*cobra.Command, []string) error {
	return a.changing(func(ctx context.Context, _ []string) error {
		b, err := a.builder()
		if err != nil {
			return err
		}
		return f(ctx, b)
	})
}

// asRoot is for commands of the running cluster: who lacks the right is told before anything is built.
func asRoot(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := cluster.NeedsRoot(); err != nil {
			return err
		}
		return run(cmd, args)
	}
}

func (a *app) build() *cobra.Command {
	envoyOnly := false
	cmd := &cobra.Command{
		Use: "build", Short: "Build the binaries of cluster and tests from their pinned tool modules", Args: cobra.NoArgs,
		RunE: a.withBuilder(func(ctx context.Context, b *images.Builder) error {
			// What only nodes run is of no use to a user who can't start one.
			if cluster.NeedsRoot() == nil {
				if err := b.Prerequisites(ctx); err != nil {
					return err
				}
			}
			if envoyOnly {
				return b.Envoy(ctx)
			}
			if err := b.Ensure(ctx, build.ForCluster()); err != nil {
				return err
			}
			if err := b.Boot(ctx); err != nil {
				return err
			}
			return b.Envoy(ctx)
		}),
	}
	cmd.Flags().BoolVar(&envoyOnly, "envoy", false,
		"get stock Envoy and missing Debian packages alone, which takes seconds")
	return cmd
}

func (a *app) up() *cobra.Command {
	return &cobra.Command{
		Use: "up", Short: "Start the cluster, or what of it doesn't run; builds what is missing", Args: cobra.NoArgs,
		RunE: asRoot(a.withBuilder(func(ctx context.Context, b *images.Builder) error {
			if err := b.Prerequisites(ctx); err != nil {
				return err
			}
			if err := b.Ensure(ctx, build.ForCluster()); err != nil {
				return err
			}
			if err := b.Boot(ctx); err != nil {
				return err
			}
			return a.cluster().Up(ctx)
		})),
	}
}

func (a *app) down() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the cluster and remove every trace of it but the built binaries", Args: cobra.NoArgs,
		RunE: asRoot(a.changing(func(context.Context, []string) error { return a.cluster().Down(keep) })),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the state (etcd, images) for the next up")
	return cmd
}

func (a *app) clean() *cobra.Command {
	return &cobra.Command{
		Use: "clean", Short: "Stop the cluster and remove the built binaries and images as well", Args: cobra.NoArgs,
		RunE: asRoot(a.changing(func(context.Context, []string) error {
			if err := a.cluster().Down(false); err != nil {
				return err
			}
			return a.home.Clean()
		})),
	}
}

func (a *app) images() *cobra.Command {
	var own, conformance bool
	cmd := &cobra.Command{
		Use: "images", Short: "Build the images of the working tree, of Envoy and of the test tool, and load what changed",
		Args: cobra.NoArgs,
		RunE: asRoot(a.withBuilder(func(ctx context.Context, b *images.Builder) error {
			var steps []func(context.Context) ([]string, error)
			if conformance {
				steps = append(steps, b.BuildConformance)
			}
			if !own {
				steps = append(steps, b.BuildOthers)
			}
			steps = append(steps, b.BuildWorkingTree)
			for _, step := range steps {
				names, err := step(ctx)
				if err == nil {
					err = a.loader(b.Store).Load(ctx, names)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})),
	}
	cmd.Flags().BoolVar(&own, "own", false, "only "+images.Fairway)
	cmd.Flags().BoolVar(&conformance, "conformance", false,
		"those of the conformance suite too, which take minutes to build the first time")
	cmd.MarkFlagsMutuallyExclusive("own", "conformance")
	return cmd
}

func (a *app) load() *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE...", Short: "Load images into both nodes: archive files, or names of images built before",
		Args: cobra.MinimumNArgs(1),
		RunE: asRoot(a.changing(func(ctx context.Context, args []string) error {
			store, err := oci.OpenStore(a.home.Images())
			if err != nil {
				return err
			}
			for _, arg := range args {
				if _, err := os.Stat(arg); err == nil {
					if err := a.loader(store).LoadArchive(ctx, arg); err != nil {
						return err
					}
					continue
				}
				name, err := oci.CompleteName(arg)
				if err != nil {
					return err
				}
				if err := a.loader(store).Load(ctx, []string{name}); err != nil {
					return err
				}
			}
			return nil
		})),
	}
}

func (a *app) in() *cobra.Command {
	return &cobra.Command{
		Use: "in NODE CMD...", Short: "Run a command in a node (node1, node2) or outside the cluster beside it (lan)",
		Args: cobra.MinimumNArgs(2), DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			name, args := args[0], args[1:]
			if len(args) > 1 && args[0] == "--" {
				args = args[1:]
			}
			cmd, err := node.Command(a.home, name, args...)
			if err != nil {
				return err
			}
			return passThrough(cmd)
		},
	}
}

func (a *app) kubectl() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl ARGS...", Short: "Run the cluster's own kubectl against it", DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd := exec.Command(filepath.Join(a.home.Bin(), "kubectl"), args...)
			cmd.Env = append(os.Environ(), "KUBECONFIG="+a.home.Kubeconfig())
			return passThrough(cmd)
		},
	}
}

func (a *app) env() *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print the shell commands that point other programs at the cluster", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Printf("export KUBECONFIG=%q\n", a.home.Kubeconfig())
			fmt.Printf("export PATH=%q:\"$PATH\"\n", a.home.Bin())
		},
	}
}

func (a *app) nodeInit() *cobra.Command {
	return &cobra.Command{
		Use: node.InitCommand, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := topology.Find(args[0])
			if err != nil {
				return err
			}
			return node.Init(a.home, n)
		},
	}
}

func (a *app) lanAgent() *cobra.Command {
	return &cobra.Command{
		Use: lanagent.Command, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lanagent.Run(cmd.Context(), a.home) },
	}
}

func (a *app) certManager() *cobra.Command {
	return &cobra.Command{
		Use: "cert-manager", Short: "Build cert-manager, load it and install it into the cluster", Args: cobra.NoArgs,
		RunE: asRoot(a.withBuilder(func(ctx context.Context, b *images.Builder) error {
			names, err := b.BuildCertManager(ctx)
			if err != nil {
				return err
			}
			if err := a.loader(b.Store).Load(ctx, names); err != nil {
				return err
			}
			return a.cluster().InstallCertManager(ctx, b.Builder)
		})),
	}
}

func (a *app) networkPolicies() *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "network-policies", Short: "Have the cluster enforce NetworkPolicies, which it doesn't by itself",
		Args: cobra.NoArgs,
		RunE: asRoot(a.withBuilder(func(ctx context.Context, b *images.Builder) error {
			if off {
				return a.cluster().RemoveNetworkPolicies(ctx, b.Builder)
			}
			names, err := b.BuildNetworkPolicies(ctx)
			if err != nil {
				return err
			}
			if err := a.loader(b.Store).Load(ctx, names); err != nil {
				return err
			}
			return a.cluster().InstallNetworkPolicies(ctx, b.Builder)
		})),
	}
	cmd.Flags().BoolVar(&off, "off", false, "enforce them no longer")
	return cmd
}
