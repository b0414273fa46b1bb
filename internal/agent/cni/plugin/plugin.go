// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plugin is the CNI plugin fairway-cni: chained behind the cluster's own plugins, it tells the node's agent of
// each new pod and lets the pod start only once the agent has answered, so that no packet of a pod in the mesh escapes.
// It changes nothing itself, and it imports little, since the runtime starts it for every pod.
//
// What it does while the agent doesn't answer:
//   - Pods of excluded namespaces (the system's own) start always. The agent isn't even asked, so that a broken agent
//     never
//     stops the operator or the cluster's DNS.
//   - Pods of namespaces outside the mesh start. Which ones those are it reads from a file that the agent keeps up to
//     date
//     and that survives a reboot.
//   - Pods of enrolled namespaces wait, and so do all others where that file is missing: a pod that the mesh protects
//     must
//     not start unprotected. The runtime reports the error, and kubelet tries again.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// DefaultTimeoutSeconds is how long ADD waits for the agent.
	DefaultTimeoutSeconds = 20
	// delTimeout is short: a DEL that waits for an absent agent would keep a pod from going.
	delTimeout = 2 * time.Second
	// redialEvery is how often an agent that is starting is looked for.
	redialEvery = 200 * time.Millisecond
	// codeTryAgain is CNI's error code for a condition that passes (CNI spec, "Error").
	codeTryAgain = 11
)

// config is the plugin's element of the CNI configuration list.
type config struct {
	types.PluginConf
	// Socket of the agent.
	Socket string `json:"socket,omitempty"`
	// StateFile is where the agent names the enrolled namespaces.
	StateFile string `json:"stateFile,omitempty"`
	// ExcludeNamespaces are never asked about.
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty"`
	// TimeoutSeconds of ADD; zero is DefaultTimeoutSeconds.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// podArgs are the CNI_ARGS by which Kubernetes runtimes name the pod.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString
	K8S_POD_NAME      types.UnmarshallableString
	K8S_POD_UID       types.UnmarshallableString
}

// Main runs the plugin as CNI's environment says, and exits.
func Main() {
	skel.PluginMainFuncs(funcs(), version.All, "CNI plugin "+names.CNIPlugin+" "+names.Version)
}

// funcs are the plugin's commands.
func funcs() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add: add, Del: del, Check: check,
		// What the agent holds for pods that are gone, it finds out from the API server.
		GC: func(*skel.CmdArgs) error { return nil },
		// Without the agent the plugin still serves most pods. Saying otherwise would turn the node NotReady, and
		// with it everything on the node.
		Status: func(*skel.CmdArgs) error { return nil },
	}
}

func add(args *skel.CmdArgs) error {
	conf, prev, err := parse(args)
	if err != nil {
		return err
	}
	if prev == nil {
		return types.NewError(types.ErrInvalidNetworkConfig,
			names.CNIPlugin+" must follow another plugin in the list: it got no prevResult", "")
	}
	if err := conf.ask(args, CommandAdd, prev); err != nil {
		return err
	}
	// Byte for byte: the result may hold what this plugin's version of CNI doesn't know.
	var raw struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(args.StdinData, &raw); err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	if _, err := os.Stdout.Write(append(raw.PrevResult, '\n')); err != nil {
		return types.NewError(types.ErrIOFailure, "write the result", err.Error())
	}
	return nil
}

func check(args *skel.CmdArgs) error {
	conf, prev, err := parse(args)
	if err != nil {
		return err
	}
	return conf.ask(args, CommandCheck, prev)
}

// del never fails: the agent learns from the API server as well that a pod is gone.
func del(args *skel.CmdArgs) error {
	conf, prev, err := parse(args)
	if err != nil {
		return nil
	}
	req, err := request(args, CommandDel, prev)
	if err != nil || req.PodNamespace == "" || conf.excluded(req.PodNamespace) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), delTimeout)
	defer cancel()
	_, _ = call(ctx, conf.Socket, req)
	return nil
}

func parse(args *skel.CmdArgs) (*config, types.Result, error) {
	conf := &config{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "configuration of "+names.CNIPlugin, err.Error())
	}
	if conf.Socket == "" {
		conf.Socket = names.CNISocket
	}
	if conf.TimeoutSeconds <= 0 {
		conf.TimeoutSeconds = DefaultTimeoutSeconds
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	return conf, conf.PrevResult, nil
}

func request(args *skel.CmdArgs, command string, prev types.Result) (Request, error) {
	var pod podArgs
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return Request{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", err.Error())
	}
	req := Request{
		Command: command, ContainerID: args.ContainerID, Netns: args.Netns, IfName: args.IfName,
		PodNamespace: string(pod.K8S_POD_NAMESPACE), PodName: string(pod.K8S_POD_NAME), PodUID: string(pod.K8S_POD_UID),
	}
	if prev == nil {
		return req, nil
	}
	result, err := current.NewResultFromResult(prev)
	if err != nil {
		return Request{}, types.NewError(types.ErrIncompatibleCNIVersion, "prevResult", err.Error())
	}
	for _, ip := range result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			req.IPs = append(req.IPs, a.Unmap())
		}
	}
	return req, nil
}

func (c *config) excluded(namespace string) bool {
	return slices.Contains(c.ExcludeNamespaces, namespace)
}

// ask has the agent decide about the pod; nil means that the pod may start.
func (c *config) ask(args *skel.CmdArgs, command string, prev types.Result) error {
	req, err := request(args, command, prev)
	if err != nil {
		return err
	}
	if req.PodNamespace == "" || c.excluded(req.PodNamespace) {
		return nil
	}
	timeout := time.Duration(c.TimeoutSeconds) * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		answer, err := call(ctx, c.Socket, req)
		if err == nil {
			if answer.Error != "" {
				return types.NewError(codeTryAgain, "fairway: "+answer.Error, "")
			}
			return nil
		}
		enrolled, why := c.mayBeEnrolled(req.PodNamespace)
		if !enrolled {
			return nil
		}
		select {
		case <-ctx.Done():
			return types.NewError(codeTryAgain,
				fmt.Sprintf("the fairway agent on this node does not answer on %s within %s; the pod waits for it, since %s "+
					"(look at: kubectl -n %s get pods -o wide -l %s=%s)",
					c.Socket, timeout, why, names.SystemNamespace, names.LabelComponent, names.ComponentNode), err.Error())
		case <-time.After(redialEvery):
		}
	}
}

// mayBeEnrolled tells, without the agent, whether pods of a namespace must wait for it, and why.
func (c *config) mayBeEnrolled(namespace string) (bool, string) {
	state, err := ReadState(c.StateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) || c.StateFile == "":
		return true, "it is not known yet which namespaces are in the mesh"
	case err != nil:
		return true, err.Error()
	}
	return state.IsEnrolled(namespace), "namespace " + namespace + " is in the mesh"
}

// call asks the agent once. An error means that it didn't answer.
func call(ctx context.Context, socket string, req Request) (Response, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return Response{}, err
		}
	}
	if err := WriteMessage(conn, req); err != nil {
		return Response{}, err
	}
	var answer Response
	if err := ReadMessage(conn, &answer); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("it took the request and did not answer in time")
		}
		return Response{}, err
	}
	return answer, nil
}
