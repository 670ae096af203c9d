# Build rules shared by all rooms: options, warnings, and the functions that declare rooms, their
# tests and their fuzz targets.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(KVASIR_TESTS "Build the tests" OFF)
option(KVASIR_WERROR "Treat warnings as errors" OFF)
option(KVASIR_FUZZ "Build the fuzz targets (clang only)" OFF)
set(KVASIR_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize= takes them: address,undefined or thread")

find_program(KVASIR_CCACHE ccache)
if(KVASIR_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KVASIR_CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(PkgConfig REQUIRED)

# -ffp-contract=off: a product and a sum are fused only where the code says so, because the order and
# the rounding of sums are part of the contract [contract: sum.order].
add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
                    -ffp-contract=off -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # libstdc++ 12 calls its own deprecated get_temporary_buffer inside std::stable_sort.
  add_compile_options(-Wno-deprecated-declarations)
endif()
if(KVASIR_WERROR)
  add_compile_options(-Werror)
endif()
if(KVASIR_SANITIZE)
  add_compile_options(-fsanitize=${KVASIR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  add_link_options(-fsanitize=${KVASIR_SANITIZE})
  # Checked a second time beside the address sanitizer, every load of a kernel takes three times as long to compile.
  set(KVASIR_SANITIZED_KERNELS -O2 -fno-sanitize=null,alignment,pointer-overflow)
endif()
if(KVASIR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  # For what no fuzz target reaches: counting its edges takes a third of the time to compile it.
  set(KVASIR_NOT_FUZZED -fno-sanitize=fuzzer-no-link)
endif()

if(KVASIR_TESTS)
  enable_testing()
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

# Only the rooms a target uses are on its include path, each under its own name: a room's headers are
# reached as "room/header.h" through build/include/<room>/<room>, a link to src/<room>.
function(kvasir_include_dir room)
  set(dir ${CMAKE_BINARY_DIR}/include/${room})
  file(MAKE_DIRECTORY ${dir})
  if(NOT EXISTS ${dir}/${room})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${room} ${dir}/${room} SYMBOLIC)
  endif()
endfunction()

# kvasir_room(NAME USES rooms... [LIBS libraries...]): a static library of every source in src/NAME,
# its unit tests (*_test.cc, one program per room) and its fuzz targets (*_fuzz.cc, one program each).
function(kvasir_room name)
  cmake_parse_arguments(ROOM "" "" "USES;LIBS;TEST_LIBS" ${ARGN})
  kvasir_include_dir(${name})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench|main)\\.cc$")
  list(FILTER sources EXCLUDE REGEX "/simd/")
  add_library(${name} STATIC ${sources})
  file(GLOB_RECURSE fuzzers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_fuzz.cc)
  if(NOT fuzzers)
    target_compile_options(${name} PRIVATE ${KVASIR_NOT_FUZZED})
  endif()
  target_include_directories(${name} PUBLIC ${CMAKE_BINARY_DIR}/include/${name})
  target_link_libraries(${name} PUBLIC ${ROOM_USES} fmt::fmt Threads::Threads PRIVATE ${ROOM_LIBS})

  if(KVASIR_TESTS)
    file(GLOB_RECURSE tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
    if(tests)
      add_executable(${name}_test ${tests})
      target_link_libraries(${name}_test PRIVATE ${name} ${ROOM_LIBS} ${ROOM_TEST_LIBS} GTest::gmock
                                                 GTest::gtest_main)
      target_compile_definitions(${name}_test PRIVATE KVASIR_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
      target_compile_options(${name}_test PRIVATE ${KVASIR_NOT_FUZZED})
      if(NOT name MATCHES "^(kernels|kv)$")
        # Up to half the time to compile; only the oracles of these two compute enough to miss it.
        if(KVASIR_SANITIZE)
          target_compile_options(${name}_test PRIVATE -O0)
        else()
          target_compile_options(${name}_test PRIVATE -O1)
        endif()
      endif()
      gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST
                           PROPERTIES TIMEOUT 300)
    endif()
  endif()
  if(KVASIR_FUZZ)
    foreach(fuzzer ${fuzzers})
      get_filename_component(target ${fuzzer} NAME_WE)
      add_executable(${target} ${fuzzer})
      target_link_libraries(${target} PRIVATE ${name} ${ROOM_LIBS})
      target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    endforeach()
  endif()
endfunction()
