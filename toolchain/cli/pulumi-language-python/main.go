// Pulumi's language host for Python, as far as Go modules have it: the host of toolchain/language-host-python is so old that
// it was told on its command line where the program is and which virtual environment it runs in. Today's engine says so with
// each call, for programs and plugins alike: this one starts that host, in the folder python beside it, once for each virtual
// environment.
package main

import (
	"log"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"notifying-postgres/toolchain/cli/languagehost"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func main() {
	path, err := languagehost.Beside("python", "pulumi-language-python")
	if err != nil {
		log.Fatal(err)
	}
	old := &hosts{path: path, started: map[environment]*grpc.ClientConn{}}
	if _, err := old.of(environment{}); err != nil { // here the engine still shows why it can't
		log.Fatal(err)
	}
	languagehost.Serve(func(stream grpc.ServerStream, method string, request languagehost.Message) error {
		switch method {
		case pulumirpc.LanguageRuntime_InstallDependencies_FullMethodName:
			return forward(stream, method, request, old, &pulumirpc.InstallDependenciesRequest{},
				func(request *pulumirpc.InstallDependenciesRequest) { request.Directory = request.Info.ProgramDirectory })
		case pulumirpc.LanguageRuntime_RunPlugin_FullMethodName:
			return forward(stream, method, request, old, &pulumirpc.RunPluginRequest{},
				func(request *pulumirpc.RunPluginRequest) {
					request.Program = filepath.Join(request.Info.ProgramDirectory, request.Info.EntryPoint)
				})
		case pulumirpc.LanguageRuntime_GetRequiredPlugins_FullMethodName:
			return forward(stream, method, request, old, &pulumirpc.GetRequiredPluginsRequest{},
				func(*pulumirpc.GetRequiredPluginsRequest) {})
		case pulumirpc.LanguageRuntime_Run_FullMethodName:
			return forward(stream, method, request, old, &pulumirpc.RunRequest{}, func(*pulumirpc.RunRequest) {})
		}
		host, err := old.of(environment{})
		if err != nil {
			return err
		}
		return languagehost.Forward(stream, method, request, host)
	})
}

// forward hands a call to the host of the program's virtual environment, with what the old host wants said its way.
func forward[Request interface {
	proto.Message
	GetInfo() *pulumirpc.ProgramInfo
}](stream grpc.ServerStream, method string, wire languagehost.Message, old *hosts, request Request, adapt func(Request)) error {
	if err := proto.Unmarshal(wire, request); err != nil {
		return err
	}
	var where environment
	if name := request.GetInfo().GetOptions().GetFields()["virtualenv"].GetStringValue(); name != "" {
		where = environment{request.GetInfo().GetRootDirectory(), name}
	}
	host, err := old.of(where)
	if err != nil {
		return err
	}
	adapt(request)
	adapted, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	return languagehost.Forward(stream, method, adapted, host)
}

// environment is a virtual environment, by the folder of the project or plugin and the name in its file; none when empty.
type environment struct{ root, virtualenv string }

// hosts are the old hosts that run.
type hosts struct {
	path    string
	mutex   sync.Mutex
	started map[environment]*grpc.ClientConn
}

// of is the host of a virtual environment.
func (h *hosts) of(where environment) (*grpc.ClientConn, error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if host, ok := h.started[where]; ok {
		return host, nil
	}
	arguments := os.Args[1:]
	if where.virtualenv != "" {
		arguments = append([]string{"-root=" + where.root, "-virtualenv=" + where.virtualenv}, arguments...)
	}
	host, err := languagehost.Start(h.path, arguments...)
	if err == nil {
		h.started[where] = host
	}
	return host, err
}
